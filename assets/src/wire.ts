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
}

/** The first message of every connection. */
export interface Welcome {
  /** Public id of the session that the connection belongs to; null for nobody. */
  readonly session: string | null;
  /** Bytes of the largest message that should be sent here. */
  readonly maxBytes: number;
}

/** One text frame for one message. */
export const encode = (message: Message): string => JSON.stringify(message);

/** The messages of one text frame, in their order; none for what cannot be read. */
export function decode(text: unknown): Message[] {
  try {
    const value = JSON.parse(text as string);
    return (Array.isArray(value) ? value : [value]).filter((message) => message?.type);
  } catch {
    return [];
  }
}
