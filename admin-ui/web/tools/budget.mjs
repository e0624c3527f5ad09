// Fails the build when the first load of the app grows over its budget (gzip, scripts and styles together), when a page
// of its own does, or when a script got into the page itself.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const FIRST_LOAD = 300_000;
const PAGE = 50_000;
const dist = new URL("../dist/", import.meta.url);
const size = (file) => gzipSync(readFileSync(new URL(file, dist)), { level: 9 }).length;
const manifest = JSON.parse(readFileSync(new URL("manifest.json", dist), "utf8"));

const seen = new Set();
const files = (key) => {
  if (seen.has(key)) return [];
  seen.add(key);
  const chunk = manifest[key];
  return [chunk.file, ...(chunk.css ?? []), ...(chunk.imports ?? []).flatMap(files)];
};
const first = files("index.html");
const total = first.reduce((sum, file) => sum + size(file), 0);
let failed = false;
const judge = (what, bytes, limit) => {
  const over = bytes > limit;
  failed ||= over;
  console.log(`${over ? "OVER" : "ok  "} ${what}: ${(bytes / 1000).toFixed(1)} of ${limit / 1000} kB gzip`);
};
judge("first load", total, FIRST_LOAD);
for (const chunk of Object.values(manifest)) {
  if (chunk.isDynamicEntry)
    judge(
      chunk.file,
      [chunk.file, ...(chunk.css ?? [])].reduce((sum, f) => sum + size(f), 0),
      PAGE,
    );
}
const page = readFileSync(new URL("index.html", dist), "utf8");
if (/<script(?![^>]*\ssrc=)/.test(page) || /\son[a-z]+=/.test(page)) {
  failed = true;
  console.log("OVER index.html: holds an inline script");
}
process.exit(failed ? 1 : 0);
