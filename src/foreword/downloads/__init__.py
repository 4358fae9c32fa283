"""Files from the network: downloaded once, resumed when cut, verified, unpacked safely, and none of it twice."""

from foreword.downloads.fetch import fetch, fetch_folder
from foreword.downloads.places import Resource, Transport, data_folder, locked

__all__ = ["Resource", "Transport", "data_folder", "fetch", "fetch_folder", "locked"]
