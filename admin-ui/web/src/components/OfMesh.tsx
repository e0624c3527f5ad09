/** A page about the mesh as a whole: shown to who may see that, and in a sentence to who is bound to a tenant. */
import { Anchor } from "@mantine/core";
import type { ReactNode } from "react";
import { Link } from "react-router";

import { useBound } from "../lib/session";
import { Empty, PageHead, Surface } from "./states";

export function OfMesh({ title, page }: { title: string; page: ReactNode }) {
  const bound = useBound();
  if (bound === null) return page;
  return (
    <>
      <PageHead title={title} />
      <Surface>
        <Empty title="This is about the whole mesh">
          You are bound to {bound}, and see what is that tenant&apos;s: its{" "}
          <Anchor component={Link} to="/">
            overview
          </Anchor>
          , models, endpoints and keys.
        </Empty>
      </Surface>
    </>
  );
}
