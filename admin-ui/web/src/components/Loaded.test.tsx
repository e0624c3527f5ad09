import { MantineProvider } from "@mantine/core";
import { cleanup, render, screen, within } from "@testing-library/react";
import { afterEach, describe, expect, it } from "vitest";

import type { DeviceDetail, LoadReport } from "../api/types";
import { formatOf, loadsOf } from "../lib/models";
import { Report } from "./Loaded";

const LOAD: LoadReport = {
  runtime: "libtorch 2.11.0, TorchScript",
  chosen: "frozen",
  remark: null,
  variants: [
    {
      variant: "frozen",
      verdict: "chosen",
      reason: null,
      absolute_difference: 2e-7,
      relative_difference: 1e-7,
      tolerance: 1e-5,
      times: [{ rows: 8, milliseconds: 0.5 }],
    },
    {
      variant: "BF16",
      verdict: "failed",
      reason: "no kernel",
      absolute_difference: null,
      relative_difference: null,
      tolerance: 0.03,
      times: [],
    },
  ],
};

afterEach(cleanup);

describe("what loading came to", () => {
  it("says what runs, what was tried and how far off it was", () => {
    render(
      <MantineProvider>
        <Report device="cpu:0" load={LOAD} />
      </MantineProvider>,
    );
    expect(screen.getByText("cpu:0: libtorch 2.11.0, TorchScript, runs frozen")).toBeTruthy();
    const rows = within(screen.getByRole("table")).getAllByRole("row");
    expect(rows[1]?.textContent).toContain("1.0e-7");
    expect(rows[1]?.textContent).toContain("8: 0.500 ms");
    expect(rows[2]?.textContent).toContain("no kernel");
  });

  it("is found by version, on each device that has loaded it", () => {
    const model = { tenant: "acme", model: "digits", version: 2, load: LOAD };
    const waiting = { ...model, load: null };
    const device = (name: string, models: unknown[]) => ({ device: name, models }) as unknown as DeviceDetail;
    const all = [device("cpu:0", [model, { ...model, version: 1 }]), device("cpu:1", [waiting])];
    expect(loadsOf(all, "acme", "digits", 2)).toEqual([{ device: "cpu:0", load: LOAD }]);
  });
});

describe("the format of a file", () => {
  it("follows from what it holds, whatever it is called", async () => {
    const padding = "x".repeat(100);
    expect(await formatOf(new File([`${padding}m/data/aotinductor/model/a.so${padding}`], "a.pt"))).toBe("torch_aoti");
    expect(await formatOf(new File(["m/constants.pkl"], "a.pt2"))).toBe("torchscript");
  });
});
