/** What a write would change, field by field. */
import { Text } from "@mantine/core";

import { diff } from "../lib/split";
import { Scroll } from "./states";

export function Diff({ before, after }: { before: unknown; after: unknown }) {
  const changes = diff(before, after);
  if (changes.length === 0) return <Text c="dimmed">Nothing would change.</Text>;
  return (
    <Scroll label="Changes">
      <table className="grid">
        <thead>
          <tr>
            <th scope="col">Field</th>
            <th scope="col">Before</th>
            <th scope="col">After</th>
          </tr>
        </thead>
        <tbody>
          {changes.map((change) => (
            <tr key={change.field}>
              <td className="mono">{change.field}</td>
              <td className="mono">
                <del className="diff">{change.before}</del>
              </td>
              <td className="mono">
                <ins className="diff">{change.after}</ins>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
