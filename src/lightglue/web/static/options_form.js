/* The form of all options, made of what GET options says: names, kinds, defaults and help are the package's own. */

import { clear, el } from "./dom.js";
import { hasWord, t } from "./i18n.js";

export class OptionsForm {
  /** @param without names of options that have controls elsewhere; prefix of ids; front: those whose rows are in `.front` */
  constructor(without, prefix = "option", front = []) {
    this.without = new Set(without);
    this.prefix = prefix;
    this.names = new Set(front);
    this.front = el("div", { class: "fields" });
    this.rows = new Map(); // name -> { option, control, fault }
    this.fields = el("div", {});
    this.element = el("div", {}, this.fields,
      el("p", { class: "pages" }, el("button", { type: "button", text: "options_reset", onclick: () => this.build(this.options ?? []) })));
    document.addEventListener("languagechange", () => this.#rename());
  }

  build(options) {
    this.options = options;
    this.rows.clear();
    clear(this.fields);
    clear(this.front);
    const groups = new Map();
    for (const option of options) {
      if (this.without.has(option.name)) continue;
      if (this.names.has(option.name)) {
        this.front.append(this.#row(option));
        continue;
      }
      const group = option.group || "";
      if (!groups.has(group)) {
        const legend = el("legend", {}, hasWord(`group_${group}`) ? t(`group_${group}`) : group);
        const inner = el("div", { class: "fields" });
        this.fields.append(el("fieldset", {}, legend, inner));
        groups.set(group, inner);
      }
      groups.get(group).append(this.#row(option));
    }
  }

  #row(option) {
    const id = `${this.prefix}-${option.name}`;
    const control = controlOf(option, id);
    const fault = el("p", { class: "fault", id: `${id}-fault` });
    const help = el("p", { class: "help", id: `${id}-help` }, helpOf(option));
    control.setAttribute("aria-describedby", `${help.id} ${fault.id}`);
    this.rows.set(option.name, { option, control, fault, help });
    const name = el("span", {}, nameOf(option));
    return el("div", { class: "field" }, control.type === "checkbox"
      ? el("label", { class: "check", for: id }, control, name) : [el("label", { for: id }, name), control], help, fault);
  }

  #rename() {
    const kept = this.raw();
    this.build(this.options ?? []);
    for (const [name, value] of kept) {
      const { control } = this.rows.get(name);
      if (control.type === "checkbox") control.checked = value;
      else control.value = value;
    }
  }

  raw() {
    return [...this.rows].map(([name, { control }]) => [name, control.type === "checkbox" ? control.checked : control.value]);
  }

  /** Those that are not as usual, by name. What was typed goes to the server as it is, which says what is wrong with it. */
  values() {
    const found = {};
    for (const [name, { option, control }] of this.rows) {
      const value = valueOf(option, control);
      if (value !== undefined && value !== option.default) found[name] = value;
    }
    return found;
  }

  has(name) {
    return this.rows.has(name);
  }

  fault(name, text) {
    for (const { control, fault } of this.rows.values()) {
      control.removeAttribute("aria-invalid");
      fault.textContent = "";
    }
    const row = this.rows.get(name);
    if (!row || !text) return;
    row.fault.textContent = text;
    row.control.setAttribute("aria-invalid", "true");
    row.control.focus();
  }
}

function nameOf(option) {
  if (hasWord(`option_${option.name}`)) return t(`option_${option.name}`);
  return option.name[0].toUpperCase() + option.name.slice(1).replaceAll("_", " ");
}

function helpOf(option) {
  const key = `option_${option.name}_help`;
  return hasWord(key) ? t(key) : option.help ?? "";
}

const isFlag = (option) => option.type === "boolean";
const isNumber = (option) => ["integer", "number"].includes(option.type);

function controlOf(option, id) {
  const usual = option.default;
  if (isFlag(option) && typeof usual === "boolean") return el("input", { type: "checkbox", id, checked: usual });
  const choices = isFlag(option) ? ["true", "false"] : option.choices ?? [];
  if (choices.length) {
    const select = el("select", { id }, usual === null || usual === undefined ? el("option", { value: "" }, t(option.name === "geometry" ? "model_none" : "as_usual")) : null,
      choices.map((name) => el("option", { value: name }, hasWord(`${option.name}_${name}`) ? t(`${option.name}_${name}`) : String(name))));
    select.value = usual ?? "";
    return select;
  }
  const text = usual === null || usual === undefined ? "" : String(usual);
  const control = el("input", { type: "text", id, inputmode: isNumber(option) ? "decimal" : null, placeholder: text || t("as_usual"),
    autocomplete: "off", spellcheck: "false" });
  control.value = text;
  return control;
}

function valueOf(option, control) {
  if (control.type === "checkbox") return control.checked;
  const text = control.value.trim();
  if (text === "") return undefined;
  if (isFlag(option)) return text === "true";
  if (isNumber(option) && Number.isFinite(Number(text))) return Number(text);
  return text;
}
