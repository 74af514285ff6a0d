import type { Why } from "./bridge";
import { answered, underWay } from "./leave";
import { type Heard, Link } from "./link";
import { type FromRenderer, Port, replaceWorker } from "./renderer";
import { type Answer, EFFECTS, type Place, Requests } from "./requests";
import type { Settings } from "./settings";
import * as status from "./status";
import type { Message } from "./wire";

/** What a request is answered with when its page has nothing to ask any more. */
export const OVER = "You are signed out.";
export const STALE = "This page belongs to another login.";

/**
 * This page's half of the bridge: between Dash's renderer, which takes it for its worker, and the browser's one socket.
 *
 * @param script URL of this very file, which is the worker's script, too.
 * @param isCurrent asks the server whether this page belongs to who is signed in, and leaves it if it does not.
 */
export function bridge(settings: Settings, script: string, isCurrent: () => Promise<boolean>): void {
  const { SharedWorker } = window;
  const start = (): SharedWorker => new SharedWorker(script, `dash-quart-ws ${settings.prefix.pathname}`);
  replaceWorker(() => {
    const port = new Port((said) => tab.hear(said));
    const tab = new Tab(settings, start, isCurrent, (message) => port.tell(message));
    return { port };
  });
}

declare global {
  interface Document {
    /** Whether the page is made for somebody who may never come (HTML, speculative loading). */
    readonly prerendering?: boolean;
  }
}

class Tab {
  readonly #settings: Settings;
  readonly #requests: Requests;
  readonly #link: Link;
  readonly #tell: (message: Message) => void;
  #state: status.State = "connecting";
  /** Open the link, as Dash's renderer wants it; `fresh`: the page is new to its session. */
  #open: ((fresh: boolean) => void) | undefined;

  constructor(
    settings: Settings,
    startWorker: () => SharedWorker,
    isCurrent: () => Promise<boolean>,
    tell: (message: Message) => void,
  ) {
    this.#settings = settings;
    this.#tell = tell;
    this.#link = new Link(startWorker, (heard) => this.#receive(heard));
    this.#requests = new Requests({
      send: (text, id, isEndless) => this.#link.post({ t: "send", id, text, isEndless }),
      rouse: () => this.#link.post({ t: "rouse" }),
      probe: isCurrent,
      post: (payload, route) => post(settings, payload, route),
      moved: (to) => this.#moved(to),
      tell,
    });
  }

  /** The renderer says something. */
  hear(said: FromRenderer): void {
    if (said.type === "connect") this.#connect(said);
    else if (said.type === "callback_request") this.#requests.ask(said);
    else if (said.type === "get_props_response") this.#requests.reply(said);
  }

  #connect({ rendererId, payload }: FromRenderer): void {
    this.#open = (fresh) => {
      const { page, session } = this.#settings;
      this.#become("connecting");
      this.#link.open(fresh, () => ({
        renderer: rendererId!,
        url: payload.serverUrl,
        inactivity: payload.inactivityTimeout ?? 0,
        page,
        session,
        visible: !document.hidden,
      }));
    };
    document.addEventListener("visibilitychange", () => {
      this.#look(!document.hidden);
      this.#show();
    });
    addEventListener("online", () => this.#look(true));
    addEventListener("pagehide", ({ persisted }) => this.#link.close(persisted));
    addEventListener("pageshow", ({ persisted }) => {
      if (!persisted) return;
      this.#receive({ t: "died" });
      this.#open!(false);
    });
    // While the page is only being prepared no worker starts: it would seem to be late.
    if (document.prerendering) document.addEventListener("prerenderingchange", () => this.#open!(true));
    else this.#open(true);
    // Socket or not: what is asked meanwhile waits here, where that has a bound.
    this.#tell({ type: "connected" });
  }

  /** The page goes on in the session that its callback has begun: what it has asked before is nobody's. */
  #moved(to: Place): void {
    Object.assign(this.#settings, to);
    this.#link.close(false);
    this.#receive({ t: "down", why: { code: 4102, reason: "another login" }, lost: [] });
    this.#requests.restart();
    this.#open!(true);
  }

  /** Say whether somebody sees this page; `wake`: now is a good time for a connection. */
  #look(wake: boolean): void {
    this.#link.post({ t: "look", visible: !document.hidden, wake });
  }

  /** The bridge says something. */
  #receive(heard: Heard): void {
    const requests = this.#requests;
    switch (heard.t) {
      case "message":
        this.#deliver(heard.message);
        break;
      case "unsent":
        requests.unsent(heard.id);
        break;
      case "up":
        this.#become("open");
        requests.up(heard.max);
        break;
      case "down":
        this.#become("reconnecting", heard.why);
        requests.down(heard.lost);
        break;
      case "died":
        this.#become("reconnecting", { code: 1006, reason: "the worker died" });
        requests.died();
        break;
      case "stop":
        this.#become("stopped", heard.why);
        requests.stop(heard.lost);
        break;
      case "stale":
        this.#end({ code: 1000, reason: STALE }, STALE, 409);
        break;
      case "over":
        this.#end(heard.why, OVER, 401);
        status.announce("session-ended", heard.why);
    }
  }

  /** The page has no session any more, or another one than the browser: it asks nothing, and leaves. */
  #end(why: Why, text: string, answer: number): void {
    this.#link.close(false);
    this.#become("signed-out", why);
    this.#requests.end(text);
    answered(answer, this.#settings.login);
  }

  #deliver(message: Message): void {
    const { type, requestId, payload } = message;
    if (payload?.effects) underWay(); // a logout ends the page, and its answer may lead it elsewhere
    if (type === "callback_response") this.#requests.answer(requestId!, payload);
    // An error that names a request is all the answer that this gets.
    else if (type === "error") this.#requests.answer(requestId!, { status: "error", ...payload });
    else this.#tell(message);
  }

  #become(state: status.State, why?: Why): void {
    if (state === "open") status.announce("open");
    else if (this.#state === "open") status.announce("close", why);
    this.#state = state;
    this.#show();
  }

  #show(): void {
    if (this.#settings.status) status.show(document.hidden ? "open" : this.#state);
  }
}

/** Post a callback, or something else, as Dash's renderer does. Rejects when there is no response. */
async function post({ prefix, page }: Settings, payload: unknown, route = "_dash-update-component"): Promise<Answer> {
  const { csrf_token_name, csrf_header_name } = JSON.parse(document.getElementById("_dash-config")!.textContent!);
  const token = document.cookie.split("; ").find((cookie) => cookie.startsWith(`${csrf_token_name}=`));
  const headers: Record<string, string> = { Accept: "application/json", "Content-Type": "application/json" };
  if (token) headers[csrf_header_name] = unescape(token.slice(csrf_token_name.length + 1));
  const url = `${prefix}${route}?endId=${encodeURIComponent(page)}`;
  // The browser keeps what comes of a login or logout also when the page is left meanwhile.
  const keepalive = route === EFFECTS;
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(payload), keepalive });
  if (response.status === 204) return { status: "prevent_update" };
  if (response.ok) return { status: "ok", data: await response.json() };
  const said = await response.json().catch(() => null);
  return { status: "error", message: said?.error ?? `${response.status} ${response.statusText}` };
}
