import { make } from "./notice";

let shown: HTMLElement | undefined;

/** Say something that stays on the page, with a link. */
export function show(text: string, action: string, href: string): void {
  shown = make("alert");
  const link = document.createElement("a");
  link.textContent = action;
  link.href = href;
  shown.append(`${text} `, link);
  document.body.append(shown);
}

export function hide(): void {
  shown?.remove();
}

export function isShown(): boolean {
  return !!shown?.isConnected;
}
