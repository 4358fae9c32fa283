/** The view of the bank: similarity, transfer, figures, nearest words. */

import { element } from "./dom.js";
import { figuresTable } from "./figures.js";
import { similarityMatrix, transferMatrix } from "./matrices.js";
import { nearestWords } from "./nearest.js";
import { several } from "./numbers.js";
import { showProblem } from "./problem.js";
import { call } from "./service.js";

const find = (id) => document.getElementById(id);

export class Bank {
  #asked = 0; // counts the calls, so that a late answer does not overwrite a newer one

  /** Ask for the bank, anew each time: prompts come and go while the service runs. */
  async show() {
    const asked = ++this.#asked;
    find("bank-problem").replaceChildren();
    find("bank-status").textContent = "Loading the bank…";
    find("bank").setAttribute("aria-busy", "true");
    try {
      const bank = await call("bank");
      if (asked !== this.#asked) return;
      find("bank").replaceChildren(...sections(bank));
      find("bank-status").textContent = bank.names?.length ? `${several(bank.names.length, "prompt")}.` : "";
    } catch (error) {
      if (asked !== this.#asked) return;
      find("bank-status").textContent = "";
      find("bank").replaceChildren();
      showProblem(find("bank-problem"), error, () => this.show());
    } finally {
      if (asked === this.#asked) find("bank").removeAttribute("aria-busy");
    }
  }
}

function sections(bank) {
  if (!bank.names?.length) {
    return [
      element("p", { class: "empty" }, "The bank is empty: this service was started without prompts. ", command("foreword train"), " makes one."),
    ];
  }
  const figures = bank.figures ?? [];
  const words = bank.words ?? {};
  return [
    section(
      "Similarity of the domains",
      bank.similarity?.values?.length ? similarityMatrix(bank.similarity) : nothing("Not known yet. It needs the embedded documents of two domains, which ", command("foreword advise COLLECTION --bank BANK"), " stores in the bank."),
    ),
    section(
      "Each prompt on other domains",
      bank.transfer?.values?.length
        ? transferMatrix(bank.transfer, figures)
        : nothing("Not known yet. ", command("foreword evaluate --group GROUP --bank BANK --systems base each --output BANK/evaluation"), " measures it."),
    ),
    section("Scores of each domain", figures.length ? figuresTable(figures) : nothing("The prompts came without scores.")),
    section("Words nearest to each prompt", Object.keys(words).length ? nearestWords(words) : nothing("None: only prompts of kind ", command("input"), " can be compared with words. The others work inside the layers.")),
  ];
}

function section(title, ...children) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  return element("section", { class: "card", "aria-labelledby": id }, element("h2", { id }, title), children);
}

function nothing(...text) {
  return element("p", { class: "empty" }, text);
}

function command(text) {
  return element("code", {}, text);
}
