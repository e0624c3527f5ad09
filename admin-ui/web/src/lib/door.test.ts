import { afterEach, expect, test } from "vitest";

import { documentsOf, inferenceAddress, keepInferenceAddress } from "./door";

afterEach(() => localStorage.clear());

test("the door is on port 8000 of this host until somebody says otherwise", () => {
  expect(inferenceAddress()).toBe(`http://${window.location.hostname}:8000`);
  keepInferenceAddress("https://models.example/");
  expect(documentsOf("digit classifier")).toBe("https://models.example/v2/docs?model=digit%20classifier");
});
