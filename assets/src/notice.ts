/** Without specificity: any rule of the app's own counts for more. The system's colours follow the reader's choice. */
const STYLE =
  ":where([class^=dash-ws]){position:fixed;right:0;z-index:99999;padding:.5em 1em;outline:1px solid;" +
  "color-scheme:light dark;color:CanvasText;background:Canvas}:where(.dash-ws-status){bottom:0}:where(.dash-ws-alert){left:0;top:0}";

let sheet: CSSStyleSheet | undefined;

/** An element to say something with; its class is `dash-ws-status` or `dash-ws-alert`. It is not in the document yet. */
export function make(role: "status" | "alert"): HTMLElement {
  const notice = document.createElement("div");
  notice.className = `dash-ws-${role}`;
  notice.setAttribute("role", role);
  if (!sheet) {
    try {
      // No style of the document's own, which a Content-Security-Policy may forbid.
      sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
    } catch {
      // A browser that cannot do this shows plain text at the end of the page.
    }
  }
  return notice;
}
