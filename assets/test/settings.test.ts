import { beforeEach, describe, expect, test } from "vitest";
import { read } from "../src/settings";

function write(content: string): void {
  const meta = document.createElement("meta");
  meta.name = "dash-quart-ws";
  meta.content = content;
  document.head.replaceChildren(meta);
}

beforeEach(() => document.head.replaceChildren());

describe("settings", () => {
  test("are what the server wrote", () => {
    write('{"prefix": "/app/", "login": "/login?by=name", "page": "token", "session": "abc"}');
    const settings = read();
    expect(settings?.prefix.href).toBe("https://dash.example/app/");
    expect(settings?.login?.href).toBe("https://dash.example/login?by=name");
    expect(settings).toMatchObject({ page: "token", session: "abc" });
  });

  test("may know no login and no session", () => {
    write('{"prefix": "/", "login": null, "page": "token", "session": null}');
    expect(read()).toMatchObject({ login: null, session: null });
  });

  test("are none without the tag", () => {
    expect(read()).toBeNull();
  });

  test.each(["", "{", "null", "[]", "{}", '"/app/"', '{"prefix": 5', '{"prefix": "https://other.example/"}'])(
    "are none when the tag says %j",
    (content) => {
      write(content);
      expect(read()).toBeNull();
    },
  );

  test.each(["javascript:alert(1)", "https://other.example/login", "//other.example/login", "data:text/html,x"])(
    "name no login that leads to %j",
    (login) => {
      write(JSON.stringify({ prefix: "/", login, page: "", session: null }));
      expect(read()?.prefix.href).toBe("https://dash.example/");
      expect(read()?.login).toBeNull();
    },
  );
});
