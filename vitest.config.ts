import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["assets/test/**/*.test.ts"],
    environment: "jsdom",
    environmentOptions: { jsdom: { url: "https://dash.example/app/report" } },
    restoreMocks: true,
    unstubGlobals: true,
  },
});
