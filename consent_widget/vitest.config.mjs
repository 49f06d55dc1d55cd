import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    environment: "jsdom",
    environmentOptions: { jsdom: { url: "https://shop.example/cart?email=bob#top" } },
    include: ["test/**/*.test.{ts,mjs}"],
    restoreMocks: true,
  },
});
