/** All models. */
import { Anchor, Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";

import { models, versions } from "../api/queries";
import { Dot, Empty, Failure, PageHead, Reason, Rows, Scroll, stateTone, Surface } from "../components/states";
import { heldBy, numberOf, versionsOf } from "../lib/models";
import { useReadOnly } from "../lib/session";
import { useLive } from "../live/LiveProvider";

export default function Models() {
  const list = useQuery(models);
  const all = useQuery(versions);
  const readOnly = useReadOnly();
  const { latest } = useLive();
  const items = list.data ?? [];
  return (
    <>
      <PageHead title="Models" note="What endpoints can call, with every published version.">
        {!readOnly && (
          <Button component={Link} to="/models/publish">
            Publish a version
          </Button>
        )}
      </PageHead>
      <Surface>
        {list.isPending && <Rows />}
        {list.isError && <Failure error={list.error} retry={() => void list.refetch()} />}
        {list.isSuccess && items.length === 0 && (
          <Empty title="No models yet">
            Publish the first version of one: a TorchScript file or a compiled .pt2, and how it is called.
          </Empty>
        )}
        {items.length > 0 && (
          <Scroll label="Models">
            <table className="grid">
              <thead>
                <tr>
                  <th scope="col">Model</th>
                  <th scope="col">Tenant</th>
                  <th scope="col">Versions</th>
                  <th scope="col">State</th>
                  <th scope="col">Labels</th>
                  <th scope="col">Default</th>
                  <th scope="col">Granted to</th>
                </tr>
              </thead>
              <tbody>
                {items.map((model) => (
                  <tr key={`${model.metadata.tenant}/${model.metadata.name}`}>
                    <td>
                      <Anchor component={Link} fw={600} to={`/models/${model.metadata.tenant}/${model.metadata.name}`}>
                        {model.metadata.name}
                      </Anchor>
                      {model.spec.description && (
                        <div style={{ color: "var(--mantine-color-dimmed)", fontSize: "0.85rem" }}>
                          {model.spec.description}
                        </div>
                      )}
                    </td>
                    <td>{model.metadata.tenant}</td>
                    <td>
                      {versionsOf(all.data ?? [], model.metadata.tenant ?? "", model.metadata.name)
                        .map(numberOf)
                        .join(", ") || "–"}
                    </td>
                    <td>
                      {latest && (
                        <State held={heldBy(latest.devices, model.metadata.tenant ?? "", model.metadata.name)} />
                      )}
                    </td>
                    <td>
                      {Object.entries(model.spec.labels ?? {}).map(([label, version]) => (
                        <span className="chip" key={label} style={{ marginRight: 6 }}>
                          {label} → {version}
                        </span>
                      ))}
                      {Object.keys(model.spec.labels ?? {}).length === 0 && "–"}
                    </td>
                    <td>{model.spec.default_version ?? "newest"}</td>
                    <td>{model.spec.grants?.join(", ") || "–"}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        )}
      </Surface>
    </>
  );
}

/** In a word when all is well; otherwise what is not, where, and why. */
function State({ held }: { held: ReturnType<typeof heldBy> }) {
  const off = held.filter((item) => item.state !== "READY");
  if (held.length === 0) return <Dot tone="plain">on no device</Dot>;
  if (off.length === 0) return <Dot tone="good">ready</Dot>;
  return off.map((item) => (
    <div key={`${item.device}/${item.version}`}>
      <Dot tone={stateTone(item.state)}>
        version {item.version} {item.state.toLowerCase()} on {item.device}
      </Dot>
      {item.reason && <Reason>{item.reason}</Reason>}
    </div>
  ));
}
