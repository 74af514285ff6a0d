/** The subprotocol that this bridge speaks; another release of the wire has another name. */
export const SUBPROTOCOL = "dash-quart-ws.v1";

/** One message, either way. Dash's own have the shape that its renderer and server give them. */
export interface Message {
  readonly type: string;
  /** The tab that it comes from or goes to; a `set_props` without one goes to every tab. */
  readonly rendererId?: string;
  readonly requestId?: string;
  // Dash's own to read; what is read of it here is checked where that is done.
  readonly payload?: any;
  /** Why there is no payload. */
  readonly error?: string;
}

/** The first message of every connection. */
export interface Welcome {
  /** Public id of the session that the connection belongs to; null for nobody. */
  readonly session: string | null;
  /** Bytes of the largest request that should be sent here. */
  readonly maxBytes: number;
  /** Milliseconds between two heartbeats; 0 for none. */
  readonly heartbeat: number;
}

/** One text frame for one message. */
export const encode = (message: Message): string => JSON.stringify(message);

/** The messages of one text frame, in their order. */
export const decode = (text: string): Message[] => ([] as Message[]).concat(JSON.parse(text));
