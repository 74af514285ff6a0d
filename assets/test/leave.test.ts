import { beforeEach, describe, expect, test, vi } from "vitest";
import { keepListenersApart } from "./listeners";

const LOGIN = new URL("https://dash.example/login");

let leave: typeof import("../src/leave");
let replace: ReturnType<typeof vi.fn<(url: string) => void>>;
let reload: ReturnType<typeof vi.fn<() => void>>;

/** As in a page that has just been loaded: nothing is remembered but what the tab's storage holds. */
async function newPage(): Promise<void> {
  document.body.replaceChildren();
  vi.resetModules();
  leave = await import("../src/leave");
  replace = vi.spyOn(leave.ways, "replace").mockReturnValue() as typeof replace;
  reload = vi.spyOn(leave.ways, "reload").mockReturnValue() as typeof reload;
}

const banner = (): HTMLElement | null => document.querySelector("[role=alert]");
const link = (): HTMLAnchorElement => document.querySelector<HTMLAnchorElement>("[role=alert] a")!;

keepListenersApart();
beforeEach(async () => {
  vi.useFakeTimers();
  await newPage();
});

describe("when nobody is signed in", () => {
  test("the login takes the page's place, and knows path, query and fragment", () => {
    history.replaceState(null, "", "/app/report?a=1&b=%20x#part/2");
    leave.answered(401, LOGIN);
    expect(replace.mock.calls).toEqual([
      ["https://dash.example/login?next=%2Fapp%2Freport%3Fa%3D1%26b%3D%2520x%23part%2F2"],
    ]);
    expect(reload).not.toHaveBeenCalled();
    expect(banner()).toBeNull();
  });

  test("a login page with a query of its own keeps it", () => {
    leave.answered(401, new URL("https://dash.example/login?by=name"));
    expect(replace.mock.calls).toEqual([["https://dash.example/login?by=name&next=%2Fapp%2Freport"]]);
  });

  test.each(["/login", "/login/", "/login?next=%2F#x"])("the login page %s does not lead to itself", (here) => {
    history.replaceState(null, "", here);
    leave.answered(401, LOGIN);
    expect(replace).not.toHaveBeenCalled();
    expect(reload).not.toHaveBeenCalled();
    expect(banner()).toBeNull();
  });

  test("and there is no login page, the page says so", () => {
    history.replaceState(null, "", "/app/report?a=1#part");
    leave.answered(401, null);
    expect(banner()?.textContent).toBe("You are signed out. Reload");
    expect(link().href).toBe("https://dash.example/app/report?a=1");
    expect(reload).not.toHaveBeenCalled();
  });

  test("several answers lead there once", () => {
    for (let i = 0; i < 5; i++) leave.answered(401, LOGIN);
    expect(replace).toHaveBeenCalledTimes(1);
  });
});

describe("when the page belongs to another session", () => {
  test("it is loaded again", () => {
    leave.answered(409, LOGIN);
    expect(reload).toHaveBeenCalledTimes(1);
    expect(replace).not.toHaveBeenCalled();
  });

  test("several answers load it once", () => {
    for (let i = 0; i < 5; i++) leave.answered(409, LOGIN);
    vi.advanceTimersByTime(leave.WINDOW - 1);
    leave.answered(409, LOGIN);
    expect(reload).toHaveBeenCalledTimes(1);
  });

  test("a page that stayed, because its user wanted to, is tried again much later", () => {
    leave.answered(409, LOGIN);
    vi.advanceTimersByTime(leave.WINDOW);
    leave.answered(409, LOGIN);
    expect(reload).toHaveBeenCalledTimes(2);
  });
});

test.each([0, 200, 204, 302, 400, 403, 404, 410, 500, 503])("status %i moves nothing", (status) => {
  leave.answered(status, LOGIN);
  expect(replace).not.toHaveBeenCalled();
  expect(reload).not.toHaveBeenCalled();
  expect(banner()).toBeNull();
});

describe("there is no loop", () => {
  test("a tab is loaded again twice in 30 seconds, then the page says why not", async () => {
    leave.answered(409, LOGIN);
    await newPage();
    leave.answered(409, LOGIN);
    expect(reload).toHaveBeenCalledTimes(1);
    await newPage();
    leave.answered(409, LOGIN);
    expect(reload).not.toHaveBeenCalled();
    expect(banner()?.textContent).toBe("This page belongs to another login. Please sign in again. Sign in");
    expect(link().href).toBe("https://dash.example/login?next=%2Fapp%2Freport");
  });

  test("ways to the login count as well", async () => {
    leave.answered(401, LOGIN);
    await newPage();
    leave.answered(409, LOGIN);
    await newPage();
    leave.answered(401, LOGIN);
    expect(replace).not.toHaveBeenCalled();
    expect(banner()?.textContent).toBe("You are signed out. Sign in");
    expect(link().href).toBe("https://dash.example/login?next=%2Fapp%2Freport");
  });

  test("a page that has said so stays", async () => {
    for (let i = 0; i < 3; i++) {
      await newPage();
      leave.answered(409, LOGIN);
    }
    vi.advanceTimersByTime(10 * leave.WINDOW);
    leave.answered(409, LOGIN);
    leave.answered(401, LOGIN);
    expect(reload).not.toHaveBeenCalled();
    expect(replace).not.toHaveBeenCalled();
    expect(document.querySelectorAll("[role=alert]")).toHaveLength(1);
  });

  test("half a minute later a new page may be loaded again", async () => {
    for (let i = 0; i < 2; i++) {
      await newPage();
      leave.answered(409, LOGIN);
    }
    vi.advanceTimersByTime(leave.WINDOW);
    await newPage();
    leave.answered(409, LOGIN);
    expect(reload).toHaveBeenCalledTimes(1);
  });

  test.each(["getItem", "setItem"] as const)("a storage whose %s fails moves nothing", (method) => {
    vi.spyOn(Storage.prototype, method).mockImplementation(() => {
      throw new DOMException("denied", "SecurityError");
    });
    leave.answered(409, LOGIN);
    expect(reload).not.toHaveBeenCalled();
    expect(banner()?.textContent).toContain("This page belongs to another login.");
  });

  test("without a storage the login is a link", () => {
    vi.stubGlobal("sessionStorage", undefined);
    leave.answered(401, LOGIN);
    expect(replace).not.toHaveBeenCalled();
    expect(link().href).toBe("https://dash.example/login?next=%2Fapp%2Freport");
  });

  test.each(["", "nonsense", "[1,2,3]", "1,2", "9999999999999999,9999999999999999", ",,,"])(
    "a storage that holds %j is as good as empty",
    (value) => {
      sessionStorage.setItem(leave.KEY, value);
      leave.answered(409, LOGIN);
      expect(reload).toHaveBeenCalledTimes(1);
      expect(sessionStorage.getItem(leave.KEY)).toBe(String(Date.now()));
    },
  );
});

describe("a page that is on its way", () => {
  test("is left alone for a second", () => {
    leave.underWay();
    leave.answered(401, LOGIN);
    vi.advanceTimersByTime(leave.GRACE - 1);
    expect(replace).not.toHaveBeenCalled();
  });

  test("is taken where it belongs if it is still there then: it may have been a download", () => {
    leave.underWay();
    leave.answered(409, LOGIN);
    leave.answered(401, LOGIN);
    vi.advanceTimersByTime(leave.GRACE);
    expect(replace).toHaveBeenCalledTimes(1);
    expect(reload).not.toHaveBeenCalled();
  });

  test("is left alone for a second from the last sign of it", () => {
    leave.underWay();
    leave.answered(409, LOGIN);
    vi.advanceTimersByTime(leave.GRACE - 1);
    leave.underWay();
    vi.advanceTimersByTime(leave.GRACE - 1);
    expect(reload).not.toHaveBeenCalled();
    vi.advanceTimersByTime(1);
    expect(reload).toHaveBeenCalledTimes(1);
  });
});

describe("a page that has come back", () => {
  test("forgets what it was about to do", () => {
    leave.underWay();
    leave.answered(409, LOGIN);
    leave.cameBack();
    vi.advanceTimersByTime(leave.GRACE);
    expect(reload).not.toHaveBeenCalled();
  });

  test("may go again at once", () => {
    leave.answered(401, LOGIN);
    leave.cameBack();
    leave.answered(401, LOGIN);
    expect(replace).toHaveBeenCalledTimes(2);
  });

  test("takes back what it said", () => {
    leave.answered(401, null);
    leave.cameBack();
    expect(banner()).toBeNull();
    leave.answered(409, null);
    expect(reload).toHaveBeenCalledTimes(1);
  });
});
