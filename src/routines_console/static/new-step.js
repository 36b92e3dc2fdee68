/**
 * Add a step to a workflow from the template of its activity.
 */

const BLANKS = { string: "", integer: 0, number: 0, boolean: false };

/**
 * Return a workflow with one more step at its end, and the step's name. What the activity requires is taken from the step before, where
 * that returns something of the same name or type, and otherwise from a parameter, which is declared if it is not.
 *
 * @param {any} workflow
 * @param {any} template Of the new step.
 * @param {any[]} templates All of them.
 * @param {string} wish The name of the step; empty for that of the activity.
 */
export function withStep(workflow, template, templates, wish) {
  const { init_params: parameters = {}, step_configs: configs = {}, steps = [] } = workflow;
  const name = unused(wish || template.activity_name, [...steps, ...Object.keys(configs)]);
  const before = steps.at(-1);
  const outputs = templates.find(({ activity_name: each }) => each === configs[before]?.activity)?.outputs ?? [];
  const config = { ...template.example_config };
  const declared = { ...parameters };
  for (const { name: each, type } of template.parameters.filter(({ required }) => required)) {
    const output = outputs.find((one) => one.name === each) ?? outputs.find((one) => one.type === type);
    if (output) config[`${each}_path`] = `${before}.outputs.${output.name}`;
    else if (!Object.hasOwn(declared, each)) declared[each] = blank(type);
  }
  return { name, workflow: { ...workflow, init_params: declared, step_configs: { ...configs, [name]: config }, steps: [...steps, name] } };
}

/** Return a name that is not taken: `text_echo`, `text_echo_2`. */
function unused(name, taken) {
  for (let number = 1; ; number += 1) {
    const candidate = number === 1 ? name : `${name}_${number}`;
    if (!taken.includes(candidate)) return candidate;
  }
}

/** Return a value of a type to begin with. */
function blank(type) {
  if (type.startsWith("array")) return [];
  if (type.startsWith("object")) return {};
  return BLANKS[type] ?? null;
}
