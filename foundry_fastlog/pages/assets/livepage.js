// The live page: runs are listed by the server, facts are fetched of those that are shown, and what
// is new comes as events.

import { h } from "./dom.js";
import { ask } from "./livesource.js";
import { DASHES, decoded, Page } from "./page.js";

const SHOWN_AT_FIRST = 3;
const PATIENCE_S = 10;
const FACTS_S = 3; // the least time between two looks at a run's facts
const SILENCE_S = 40; // after which the server is asked anew: it gives a sign of life every 15 s
const UNSEEN_S = 60; // after which a page that nobody sees lets go: browsers open six streams at most
const STRANGE = "The server no longer knows this page: open the address that foundry-fastlog ui has printed.";
const EMPTY = {
  curves: [],
  metrics: [],
  timings: [],
  timing_base: ["wall", 0],
  by_rank: {},
  rank_map: null,
  errors: { groups: [], omitted: 0 },
  messages: { lines: [], total: 0, levels: {} },
  config: [],
  starts: [],
  marks: [],
  checks: [],
  problems: [],
  ranks: [],
  dropped: {},
  left_out: {},
  complete: true,
  cost: null,
  git: "",
  lines: 0,
  bytes: 0,
  unread: 0,
  wall_s: null,
};

export class LivePage extends Page {
  prepare(row) {
    const facts = { ...EMPTY, first: row.started, steps: [null, row.step], ...row };
    return { ...super.prepare(facts), spent_s: row.wall_s, loaded: false, looked: 0 };
  }

  // Of many runs, those that are named in the address are shown, else the latest.
  hide() {
    const latest = this.runs.slice(0, SHOWN_AT_FIRST); // they come sorted
    const shown = this.asked ?? new Set(latest.map((run) => run.name));
    for (const run of this.runs) run.hidden = !shown.has(run.name);
    this.dashes();
  }

  // Of the runs that are shown, those of one colour are told apart by their dashes.
  dashes() {
    const seen = new Map();
    const shown = this.runs.filter((run) => !run.hidden);
    for (const run of shown.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const before = seen.get(run.colour) ?? 0;
      run.dash = DASHES[before % DASHES.length];
      seen.set(run.colour, before + 1);
    }
  }

  // The runs that the address names; null where it names none.
  get asked() {
    const names = this.settings.get("show");
    return names ? new Set(names.split(",").map(decoded)) : null;
  }

  // Asks which runs an expression is true of, such as config.lr > 0.001 and last.loss < 2.
  async where(expression) {
    const { runs } = await ask("/api/runs", { where: expression });
    return new Set(runs);
  }

  toggle(run) {
    run.hidden = !run.hidden;
    const shown = this.runs.filter((one) => !one.hidden).map((one) => encodeURIComponent(one.name));
    this.settings.set({ show: shown.join(",") });
    this.dashes();
    this.lookAtAll();
    this.grid.show();
    this.panel.show();
  }

  choose(run, kept) {
    super.choose(run, kept);
    this.look(run);
  }

  start(root) {
    super.start(root);
    // Not randomUUID, which pages of other machines lack without encryption.
    this.client = crypto.getRandomValues(new Uint32Array(4)).join("-");
    this.grid.onview = () => this.follow();
    this.settings.listen(["x"], () => this.follow());
    document.addEventListener("visibilitychange", () => this.seen());
    setInterval(() => {
      if (this.events && Date.now() - this.heard > SILENCE_S * 1000) this.listen();
    }, 5000);
    this.lookAtAll();
    this.listen();
  }

  // Fetches the facts of the runs that are shown.
  lookAtAll() {
    return Promise.all(this.runs.filter((run) => !run.hidden).map((run) => this.look(run)));
  }

  async look(run, again = false) {
    if (run.loaded && !again) return;
    run.loaded = true;
    const begun = (run.looked = Date.now());
    this.busy(1);
    try {
      // The names come first: curves need not wait for the rest, which takes seconds of a long run.
      if (!again || !run.curves.size) {
        const { curves } = await ask("/api/names", { run: run.id });
        this.draw(run, curves);
        await this.drawn();
      }
      const asked = Date.now();
      const facts = await ask("/api/run", { run: run.id });
      this.draw(run, facts.curves);
      const kept = { name: run.name, id: run.id, style: run.style, hidden: run.hidden };
      const { dash } = run;
      Object.assign(run, super.prepare({ ...facts, ...kept }), { looked: begun, problem: "", dash });
      run.took = Date.now() - asked;
    } catch (error) {
      run.loaded = false;
      run.problem = error.message;
    } finally {
      this.busy(-1);
    }
    this.panel.show();
    this.countErrors();
    this.grid.repaint(); // starts and errors are marked
    // What is unfolded is being read.
    if (this.settings.get("tab") !== "charts" && !this.panelBox.querySelector("details[open]")) this.show();
  }

  // Shows the charts of a run's curves, if these are others than before.
  draw(run, curves) {
    const before = [...run.curves.keys()].sort().join("\n");
    run.curves = new Map(curves.map((entry) => [entry.name, entry]));
    if ([...run.curves.keys()].sort().join("\n") !== before) this.refreshCharts();
  }

  // Not more often than the server can bear: of a long run a look takes seconds.
  lookSoon(run) {
    if (run.soon) return;
    const wait = run.looked + Math.max(FACTS_S * 1000, 4 * (run.took ?? 0)) - Date.now();
    run.soon = setTimeout(() => {
      run.soon = null;
      this.look(run, true);
    }, Math.max(0, wait));
  }

  // Waits until the charts in view are drawn, so that the server reads curves first.
  async drawn() {
    const until = Date.now() + PATIENCE_S * 1000;
    const pause = () => new Promise((done) => setTimeout(done, 60));
    do await pause();
    while (this.grid.isLoading && Date.now() < until);
  }

  refreshCharts() {
    this.updateAxes();
    if (this.settings.get("tab") === "charts") this.grid.show();
  }

  // Listens to the server, with a new connection if there was one.
  listen() {
    this.lost = Boolean(this.events) || this.lost;
    this.events?.close();
    this.heard = Date.now();
    const events = (this.events = new EventSource(`/api/events?client=${this.client}`));
    const on = (kind, act) =>
      events.addEventListener(kind, (event) => {
        this.heard = Date.now();
        act(event.data && JSON.parse(event.data));
      });
    on("hello", () => {
      if (this.lost) this.again();
      this.lost = false;
      this.told("");
      this.wanted = "";
      this.follow();
    });
    on("error", () => {
      this.lost = true;
      const isRefused = events.readyState === EventSource.CLOSED;
      this.told(isRefused ? STRANGE : "The server does not answer. Is foundry-fastlog ui still running?");
    });
    on("beat", () => null);
    on("news", (news) => this.take(news));
    on("anew", () => this.anew());
    on("runs", (runs) => this.list(runs));
  }

  // The page is looked at, or no longer.
  seen() {
    clearTimeout(this.leaving);
    if (document.hidden) {
      this.leaving = setTimeout(() => {
        this.events.close();
        this.events = null;
        this.lost = true;
      }, UNSEEN_S * 1000);
    } else if (!this.events) this.listen();
  }

  // Says which curves are on the screen.
  follow() {
    clearTimeout(this.following);
    this.following = setTimeout(() => {
      const names = [...new Set([...this.grid.seen].map((chart) => chart.name)).add(this.settings.get("x"))];
      const runs = {};
      for (const run of this.runs) if (!run.hidden) runs[run.id] = this.wantedOf(run, names);
      const wanted = JSON.stringify(runs);
      if (wanted === this.wanted || this.lost) return;
      this.wanted = wanted;
      ask("/api/follow", {}, { client: this.client, runs })
        .then((reached) => this.catchUp(runs, reached))
        .catch((error) => this.told(error.message));
    }, 100);
  }

  // The curves of a run among these: a name, or with its kind and what was recorded.
  wantedOf(run, names) {
    const known = names.map((name) => run.curves.get(name)).filter((entry) => entry);
    return known.map(({ name, kind, of }) => (kind ? [name, kind, of] : name));
  }

  // What was recorded between loading a curve and following it is in neither: load it again.
  catchUp(followed, reached) {
    const before = this.followed ?? {};
    this.followed = followed;
    for (const run of this.runs) {
      const known = new Set(before[run.id]?.map(String));
      const added = (followed[run.id] ?? []).filter((one) => !known.has(String(one)));
      for (const one of added) {
        const [name, kind] = [one].flat();
        const stream = kind === "system" ? "system" : "metrics";
        this.source.dropIfBehind(run, name, reached[run.id]?.[stream] ?? {}).then((dropped) => {
          if (dropped) this.redraw(new Set([name]), new Set());
        });
      }
    }
  }

  // Draws the charts of some curves anew, and those of others as they have grown.
  redraw(anew, grown) {
    const axis = this.settings.get("x");
    const of = (chart, names) => names.has(chart.name) || names.has(axis);
    this.grid.visible((chart) => {
      if (of(chart, anew)) chart.mount();
      else if (of(chart, grown)) chart.update();
    });
  }

  async take({ run: id, at, values, said, anew, gone }) {
    const run = this.runs.find((one) => one.id === id);
    if (!run) return;
    if (gone) return this.told(`${run.name} is gone, or cannot be read.`);
    if (anew) {
      this.told("");
      this.source.forget(id);
      await this.look(run, true);
      this.grid.visible((chart) => chart.mount());
      return;
    }
    const long = await this.source.append(run, values, at);
    this.redraw(long, new Set(Object.keys(values)));
    const wanted = said || this.settings.get("tab") !== "charts" || !run.curves.size;
    if (wanted) this.lookSoon(run);
  }

  // After a time without a connection.
  again() {
    ask("/api/runs")
      .then((runs) => this.list(runs))
      .catch((error) => this.told(error.message));
    this.anew();
  }

  anew() {
    for (const run of this.runs) {
      this.source.forget(run.id);
      run.loaded = false;
    }
    this.lookAtAll().then(() => this.grid.visible((chart) => chart.mount()));
  }

  // The runs that there are now.
  list(found) {
    const known = new Map(this.runs.map((run) => [run.id, run]));
    const lost = new Map((this.absent ?? []).map((run) => [run.id, run]));
    this.runs = found.map((row) => {
      const run = known.get(row.id);
      if (!run) return { ...this.prepare(row), hidden: !(this.asked?.has(row.name) || lost.has(row.id)) };
      const { state, error, step, value } = row;
      const ended = run.state !== state;
      Object.assign(run, { state, error, value, spent_s: row.wall_s ?? run.spent_s });
      run.steps = [run.steps[0], step ?? run.steps[1]];
      if (ended && run.loaded) this.look(run, true);
      return run;
    });
    const there = new Set(found.map((row) => row.id));
    const gone = [...known.values()].filter((run) => !run.hidden && !there.has(run.id));
    this.absent = [...lost.values(), ...gone].filter((run) => !there.has(run.id));
    if (gone.length || this.absent.length < lost.size) {
      const names = this.absent.map((run) => run.name).join(", ");
      this.told(names && `${names} is gone, or cannot be read.`);
      this.refreshCharts();
    }
    if (!known.size) this.hide();
    this.dashes();
    this.lookAtAll();
    this.panel.show();
    this.panel.again();
  }

  told(message) {
    this.notice ??= document.querySelector("header.bar").appendChild(h("span.notice", { role: "status" }));
    this.notice.textContent = message;
    this.notice.hidden = !message;
  }
}
