/* The page of the REST interface: openapi.json as headings and tables, and nothing else. */

const make = (name, text = "", ...children) => {
  const element = document.createElement(name);
  element.textContent = text;
  element.append(...children);
  return element;
};

/** Text in which `this` is code. */
const words = (text) => make("p", "", ...text.split("`").map((part, i) => (i % 2 ? make("code", part) : part)));

const base = new URL("api/v1/", document.baseURI);
const main = document.getElementById("paths");

function named(schema, all) {
  const name = schema?.$ref?.split("/").pop();
  return name ? { name, schema: all[name] } : { name: null, schema };
}

function kindOf(schema, all) {
  const { name, schema: found } = named(schema ?? {}, all);
  if (name) return name;
  if (found.enum) return found.enum.filter((each) => each !== null).join(", ");
  if (found.anyOf) return found.anyOf.map((each) => kindOf(each, all)).join(" or ");
  if (found.type === "array") return `[${kindOf(found.items, all)}]`;
  return [found.type ?? "any"].flat().join(" or ");
}

function table(schema, all) {
  const { schema: found } = named(schema, all);
  const rows = Object.entries(found?.properties ?? {}).map(([key, value]) =>
    make("tr", "", make("td", "", make("code", key)), make("td", kindOf(value, all)),
      make("td", named(value, all).schema?.description ?? "")));
  const body = make("tbody", "", ...rows);
  return make("table", "", body);
}

function operation(path, method, about, all) {
  const details = make("details");
  const summary = make("summary", "", make("b", method.toUpperCase()), make("code", path), make("span", about.summary ?? ""));
  details.append(summary, words(about.description ?? ""));
  for (const [type, { schema }] of Object.entries(about.requestBody?.content ?? {})) {
    details.append(make("h3", type), table(schema, all));
  }
  const parameters = about.parameters ?? [];
  if (parameters.length) {
    const rows = parameters.map((each) => make("tr", "", make("td", "", make("code", each.name)), make("td", each.in), make("td", each.description ?? "")));
    details.append(make("h3", "Parameters"), make("table", "", make("tbody", "", ...rows)));
  }
  for (const [status, response] of Object.entries(about.responses ?? {})) {
    const schema = response.content?.["application/json"]?.schema;
    details.append(make("p", `${status}: ${response.description ?? ""} ${schema ? kindOf(schema, all) : ""}`));
  }
  return details;
}

try {
  const document_ = await (await fetch(new URL("openapi.json", base), { credentials: "same-origin" })).json();
  const all = document_.components.schemas;
  const groups = new Map();
  for (const [path, methods] of Object.entries(document_.paths)) {
    for (const [method, about] of Object.entries(methods)) {
      const tag = about.tags?.[0] ?? "";
      groups.set(tag, [...(groups.get(tag) ?? []), operation(path, method, about, all)]);
    }
  }
  for (const [tag, operations] of groups) main.append(make("section", "", make("h2", tag), ...operations));
  const schemas = Object.entries(all).map(([name, schema]) => make("details", "", make("summary", "", make("code", name)), table(schema, all)));
  main.append(make("section", "", make("h2", "Objects"), ...schemas));
} catch (error) {
  main.append(make("p", String(error)));
}
