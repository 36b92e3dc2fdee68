/**
 * The pages of the console, by their addresses.
 */

import { editRule, newRule } from "./views/alert-rule.js";
import { alerts } from "./views/alerts.js";
import { changes } from "./views/changes.js";
import { environment } from "./views/environment.js";
import { feeds } from "./views/feeds.js";
import { gaps } from "./views/gaps.js";
import { limits } from "./views/limits.js";
import { overview } from "./views/overview.js";
import { report } from "./views/report.js";
import { editRoutine, newRoutine } from "./views/routine-form.js";
import { routine } from "./views/routine.js";
import { run } from "./views/run.js";
import { task } from "./views/task.js";
import { editTask, newTask } from "./views/task-form.js";
import { tasks } from "./views/tasks.js";
import { timeline } from "./views/timeline.js";
import { versions } from "./views/versions.js";
import { week } from "./views/week.js";

/** @type {[string, (context: import("./main.js").Context) => Promise<import("./main.js").View>][]} */
export const ROUTES = [
  ["/", overview],
  ["/new", newRoutine],
  ["/new/task", newTask],
  ["/routines/:task/:name", routine],
  ["/routines/:task/:name/edit", editRoutine],
  ["/routines/:task/:name/gaps", gaps],
  ["/timeline", timeline],
  ["/week", week],
  ["/report", report],
  ["/tasks", tasks],
  ["/tasks/:task", task],
  ["/tasks/:task/edit", editTask],
  ["/tasks/:task/versions", versions],
  ["/runs/:task/:id", run],
  ["/alerts", alerts],
  ["/alerts/new", newRule],
  ["/alerts/rules/:rule", editRule],
  ["/changes", changes],
  ["/feeds", feeds],
  ["/environment", environment],
  ["/limits", limits],
];
