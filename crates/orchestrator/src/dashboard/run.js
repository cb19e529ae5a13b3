"use strict";
// Keeps the page of one run true. What comes from outside is only ever written as text.
(() => {
  const linesMax = 1000, eventsMax = 500;
  const run = document.getElementById("run").dataset.run;
  const api = "/api/v1/runs/" + run;
  const byId = (id) => document.getElementById(id);
  const moment = (ms) => ms == null ? "" : new Date(ms).toISOString().slice(0, 19).replace("T", " ") + "Z";
  const element = (name, text, className) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const verdicts = ["pass", "warn", "fail", "inconclusive", "skipped"];

  const showStages = (stages) => byId("stages").replaceChildren(...stages.map((stage) => {
    const row = document.createElement("tr");
    const verdict = document.createElement("td");
    if (verdicts.includes(stage.verdict)) verdict.append(element("span", stage.verdict, "verdict " + stage.verdict));
    row.append(element("td", stage.stage), verdict, element("td", stage.attempts),
      element("td", moment(stage.began), "dim"), element("td", moment(stage.ended), "dim"),
      element("td", stage.overridden || ""));
    return row;
  }));

  const showRun = (view) => {
    const kinds = { FailedHolding: "held", Completed: "completed", Cancelled: "cancelled" };
    const state = [element("span", view.state, "state " + (kinds[view.state] || "walking"))];
    if (view.state === "FailedHolding" && view.stage) state.push(" at " + view.stage);
    if (view.reason) state.push(element("div", view.reason, "dim"));
    byId("state").replaceChildren(...state);
    const wait = view.wait;
    byId("wait").replaceChildren(...(wait ? [wait.for, element("div",
      `since ${moment(wait.since)}, until ${moment(wait.until)}, then ${wait.then}`, "dim")] : ["nothing"]));
    byId("keys").replaceChildren(...view.host_keys.map((key) => element("code", key)));
    byId("machine").textContent = view.wrong_machine || "";
    byId("unproved").textContent = view.machine_unproved || "";
    showStages(view.stages);
  };

  // One request at a time; what happens meanwhile is fetched by one more.
  let busy = false, again = false;
  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(api);
      if (answer.ok) showRun(await answer.json());
    } catch { /* the event stream comes back by itself, and with it the next refresh */ }
    busy = false;
    if (again) { again = false; refresh(); }
  };

  const log = byId("log");
  let lines = [];
  const addLines = (more) => {
    const follows = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    lines = lines.concat(more.map((line) => `${line.ts} ${line.stage || "-"} ${line.text}`)).slice(-linesMax);
    log.textContent = lines.join("\n");
    if (follows) log.scrollTop = log.scrollHeight;
  };
  // Lines are read by cursor alone, one page at a time: what the stream tells of them only says that there are more. So none
  // comes twice, and none is missing after a reconnect or where the stream was too fast.
  let cursor = null, reading = false, readAgain = false;
  const readLines = async () => {
    if (reading) { readAgain = true; return; }
    reading = true;
    try {
      for (let atEnd = false; !atEnd;) {
        const answer = await fetch(api + (cursor === null ? "/logs?tail=200" : "/logs?after=" + cursor));
        if (!answer.ok) break;
        const page = await answer.json();
        addLines(page.lines);
        cursor = page.next;
        atEnd = page.at_end;
      }
    } catch { /* as above */ }
    reading = false;
    if (readAgain) { readAgain = false; readLines(); }
  };

  const feed = new EventSource(api + "/events");
  feed.addEventListener("open", () => { refresh(); readLines(); });
  feed.addEventListener("gap", () => { refresh(); readLines(); });
  feed.addEventListener("event", (message) => {
    const event = JSON.parse(message.data);
    const list = byId("events");
    const item = element("li", event.text);
    item.prepend(element("span", moment(event.at) + " ", "dim"));
    list.append(item);
    while (list.childElementCount > eventsMax) list.firstElementChild.remove();
    refresh();
  });
  feed.addEventListener("log", readLines);
  feed.addEventListener("agent", (message) => {
    const told = JSON.parse(message.data);
    byId("agent").textContent = told.agent || "none yet";
    byId("activity").textContent = told.activity;
    byId("home").textContent = told.home_failed ? "its home has failed" : "";
  });
})();
