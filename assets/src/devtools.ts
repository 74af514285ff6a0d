/**
 * Dash's dev tools, in debug mode: they show of a callback over the websocket what they show of one over HTTP.
 *
 * A script of its own, between the page script and Dash's renderer. Of an answer over the websocket the renderer knows neither
 * the page about an exception, nor how long the server took, nor how many bytes there were: all of that is in a response over
 * HTTP. The server says it beside its answer, and here it gets to where the renderer looks for it.
 */
import { type FromRenderer, replaceWorker } from "./renderer";
import type { Message } from "./wire";

/**
 * What the callback graph counts, by the renderer's names: milliseconds of `__dash_server`, and of what `ctx.record_timing`
 * measures; characters of `__dash_upload`, bytes of `__dash_download`.
 */
type Usage = Record<string, number>;

/** What the server says beside its answer. */
interface Told {
  readonly usage?: Usage;
  /** The page about an exception. */
  readonly page?: string;
}

interface Request {
  /** What is posted when it goes over HTTP after all. */
  readonly body: string;
  /** Stands for it: the renderer takes this one array along when it counts. */
  readonly inputs: object;
  /** Of HTTP. */
  response?: Response;
}

const open = new Map<string, Request>();
/** By their inputs; null for one that has failed, which the renderer does not count over HTTP. */
const counted = new WeakMap<object, Usage | null>();

// ------------------------------------------------------------------------------------ what the renderer says and hears

function said(message: FromRenderer): void {
  const { type, requestId, payload } = message;
  if (type === "callback_request") open.set(requestId!, { body: JSON.stringify(payload), inputs: payload.inputs });
}

/** What the renderer is to hear. */
function heard(message: Message): Message {
  if (message.type === "disconnected") open.clear();
  const { payload } = message;
  const request = message.type === "callback_response" && open.get(message.requestId!);
  if (!request) return message;
  open.delete(message.requestId!);
  const { body, inputs, response } = request;
  const told: Told | undefined = response ? { usage: usageOf(response) } : payload.devtools;
  const hasFailed = payload.status === "error";
  if (told) counted.set(inputs, hasFailed ? null : { ...told.usage, __dash_upload: body.length });
  if (!hasFailed) return message;
  // The renderer waits for what it is given: to one that rejects with a response it does what it does over HTTP.
  const page = response ?? new Response(told?.page ?? payload.message, { status: 500 });
  const failed = Promise.reject(page);
  failed.catch(() => {}); // also when nobody waits any more
  return { ...message, payload: failed };
}

if (window.SharedWorker)
  replaceWorker((original) => {
    const { port } = original();
    return {
      port: {
        postMessage(message: FromRenderer) {
          said(message);
          port.postMessage(message);
        },
        start: () => port.start(),
        close: () => port.close(),
        set onmessage(hear: (event: { data: Message }) => void) {
          port.onmessage = ({ data }) => hear({ data: heard(data) });
        },
      },
    };
  });

// ------------------------------------------------------------------------------------------- what goes over HTTP after all

/** As the renderer reads it: a name, and how long that took. */
function usageOf({ headers }: Response): Usage {
  const usage: Usage = { __dash_download: Number(headers.get("Content-Length")) };
  for (const entry of (headers.get("Server-Timing") ?? "").split(",")) {
    const [name = "", ...parameters] = entry.split(";");
    const duration = parameters.map((one) => /^\s*dur=([\d.]+)/.exec(one)?.[1]).find(Boolean);
    if (duration) usage[name.trim()] = Number(duration);
  }
  return usage;
}

if (window.fetch)
  window.fetch = new Proxy(window.fetch, {
    apply(fetch, self, args: Parameters<typeof window.fetch>) {
      const request = [...open.values()].find(({ body }) => body === args[1]?.body);
      const answer = fetch.apply(self, args);
      return request
        ? answer.then((response: Response) => {
            request.response = response.clone();
            return response;
          })
        : answer;
    },
  });

// ---------------------------------------------------------------------------------------------------- what it counts

interface Action {
  readonly type: string;
  readonly payload?: any;
}
type Reducer = (state: unknown, action: Action) => unknown;
type Create = (reducer: Reducer, ...rest: unknown[]) => unknown;
type Enhancer = (create: Create) => Create;
type Compose = (options?: object) => (...enhancers: Enhancer[]) => Enhancer;

declare global {
  interface Window {
    /** Where the dev bundle of the renderer looks for the Redux DevTools, which are told all of its actions. */
    __REDUX_DEVTOOLS_EXTENSION_COMPOSE__?: Compose;
  }
}

const counting: Enhancer =
  (create) =>
  (reducer, ...rest) =>
    create((state, action) => {
      const { type, payload } = action;
      const usage = type === "UPDATE_RESOURCE_USAGE" ? counted.get(payload.inputs) : undefined;
      if (usage === null) return state;
      return reducer(state, usage ? { ...action, payload: { ...payload, usage: { ...payload.usage, ...usage } } } : action);
    }, ...rest);

const theirs = window.__REDUX_DEVTOOLS_EXTENSION_COMPOSE__;
window.__REDUX_DEVTOOLS_EXTENSION_COMPOSE__ =
  (options) =>
  (...enhancers) => {
    const all = [...enhancers, counting];
    return theirs ? theirs(options)(...all) : (create) => all.reduceRight((made, enhance) => enhance(made), create);
  };
