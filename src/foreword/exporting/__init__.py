"""Prompts in the forms of other tools: sentence-transformers, PEFT and ONNX.

Every export takes an encoder from `foreword.load_encoder` with the prompts it carries, and writes a new folder, which
appears only when it is whole.
"""

from foreword.exporting.onnx import export_onnx
from foreword.exporting.peft import export_peft, import_peft
from foreword.exporting.plain import export_plain, export_prompted

__all__ = ["export_onnx", "export_peft", "export_plain", "export_prompted", "import_peft"]
