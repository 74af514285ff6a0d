import { afterEach, vi } from "vitest";

/** Listeners that a test's scripts add are gone when it ends, as they would be with its page. */
export function keepListenersApart(): void {
  const added: Array<() => void> = [];
  for (const target of [window, document]) {
    const add = target.addEventListener.bind(target);
    target.addEventListener = (type: string, listener: EventListener, options?: boolean): void => {
      add(type, listener, options);
      added.push(() => target.removeEventListener(type, listener, options));
    };
  }
  afterEach(() => {
    while (added.length) added.pop()!();
    vi.useRealTimers();
    vi.unstubAllGlobals();
    document.head.replaceChildren();
    document.body.replaceChildren();
    sessionStorage.clear();
    history.replaceState(null, "", "/app/report");
  });
}
