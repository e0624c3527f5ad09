import { MantineProvider } from "@mantine/core";
import { render, screen } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { useState } from "react";
import { describe, expect, it } from "vitest";

import type { ArmSpec } from "../api/types";
import { Diff } from "./Diff";
import { SplitEditor } from "./SplitEditor";

const START: ArmSpec[] = [
  { name: "v1", model: "digit-classifier", version: "1", weight: 90 },
  { name: "v2", model: "digit-classifier", version: "2", weight: 10 },
];
function Held({ readOnly = false, start = START }: { readOnly?: boolean; start?: ArmSpec[] }) {
  const [arms, setArms] = useState(start);
  return (
    <MantineProvider>
      <SplitEditor
        arms={arms}
        choices={{ models: ["digit-classifier"], versions: () => ["1", "2"] }}
        readOnly={readOnly}
        onChange={setArms}
      />
      <Diff before={{ arms: START }} after={{ arms }} />
    </MantineProvider>
  );
}
const sum = () => screen.getByLabelText("Sum of the weights").textContent;

describe("the split editor", () => {
  it("keeps two arms at 100 and shows the change", async () => {
    const user = userEvent.setup();
    render(<Held />);
    expect(sum()).toBe("Sum 100 %");
    const first = screen.getByLabelText("Percent for arm v1");
    await user.clear(first);
    await user.type(first, "60");
    await user.tab();
    expect((screen.getByLabelText("Percent for arm v2") as HTMLInputElement).value).toBe("40 %");
    expect(sum()).toBe("Sum 100 %");
    expect(screen.getByText("arms.v2.weight").closest("tr")?.textContent).toContain("1040");
  });
  it("says what is missing with three", async () => {
    const user = userEvent.setup();
    render(<Held />);
    await user.click(screen.getByRole("button", { name: "Add an arm" }));
    const third = screen.getByLabelText("Percent for arm v3");
    await user.clear(third);
    await user.type(third, "5");
    expect(sum()).toBe("Sum 105 %");
    expect(screen.getByText(/the weights sum to 105.*5 too much/)).toBeTruthy();
    await user.click(screen.getByRole("button", { name: "Split evenly" }));
    expect(sum()).toBe("Sum 100 %");
  });
  it("moves by keyboard on the slider", async () => {
    const user = userEvent.setup();
    render(<Held />);
    screen.getByRole("slider", { name: "Weight of arm v1" }).focus();
    await user.keyboard("{ArrowRight}");
    expect((screen.getByLabelText("Percent for arm v1") as HTMLInputElement).value).toBe("91 %");
    expect(sum()).toBe("Sum 100 %");
  });
  it("lets a viewer change nothing", () => {
    render(<Held readOnly />);
    for (const box of screen.getAllByRole("textbox")) expect((box as HTMLInputElement).disabled).toBe(true);
    expect((screen.getByRole("button", { name: "Add an arm" }) as HTMLButtonElement).disabled).toBe(true);
  });
});
