import { MantineProvider } from "@mantine/core";
import type { UseQueryResult } from "@tanstack/react-query";
import { render, screen } from "@testing-library/react";
import { expect, it } from "vitest";

import { Listed } from "./Table";

const columns = [{ name: "Name", cell: (row: string) => row }];

const show = (query: object) =>
  render(
    <MantineProvider>
      <Listed
        query={query as UseQueryResult<string[]>}
        columns={columns}
        id={(row) => row}
        label="names"
        empty={<p>none yet</p>}
      />
    </MantineProvider>,
  );

it("keeps its rows where a refresh fails, and calls a list empty only where it was read", () => {
  const failed = { isPending: false, isError: true, error: new Error("the mesh does not answer") };
  const before = show({ ...failed, data: ["acme"] });
  expect(screen.getByText("acme")).toBeTruthy();
  expect(screen.getByText(/does not answer/)).toBeTruthy();
  before.unmount();
  const never = show(failed);
  expect(screen.queryByText("none yet")).toBeNull();
  expect(screen.getByText(/does not answer/)).toBeTruthy();
  never.unmount();
  show({ isPending: false, isError: false, data: [] });
  expect(screen.getByText("none yet")).toBeTruthy();
});
