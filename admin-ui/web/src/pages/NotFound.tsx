/** An address that leads nowhere. */
import { Anchor } from "@mantine/core";
import { Link } from "react-router";

import { Empty, PageHead } from "../components/states";

export default function NotFound() {
  return (
    <>
      <PageHead title="Not found" />
      <Empty title="There is no such page">
        <Anchor component={Link} to="/">
          To the overview
        </Anchor>
      </Empty>
    </>
  );
}
