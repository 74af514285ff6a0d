let shown: HTMLElement | undefined;

/**
 * Say something that stays on the page, with a link. Styled through the CSSOM, which no Content-Security-Policy forbids;
 * the system's colours follow the reader's light, dark or high-contrast mode.
 */
export function show(text: string, action: string, href: string): void {
  shown = document.createElement("div");
  shown.setAttribute("role", "alert");
  shown.style.cssText =
    "position:fixed;inset:0 0 auto;z-index:999999999;padding:1em;outline:1px solid;" +
    "color-scheme:light dark;color:CanvasText;background:Canvas";
  const link = document.createElement("a");
  link.style.color = "LinkText";
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
