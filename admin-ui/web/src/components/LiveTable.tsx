/** Endpoints and arms as they are called right now. */
import { Anchor } from "@mantine/core";
import { Link } from "react-router";

import type { LiveRow } from "../api/types";
import { count, millis, rate } from "../lib/format";
import { armKey } from "../live/reducer";
import { Scroll } from "./states";

export function LiveTable({ rows, within }: { rows: LiveRow[]; within?: boolean }) {
  return (
    <Scroll label="Traffic now">
      <table className="grid">
        <thead>
          <tr>
            {!within && <th scope="col">Called</th>}
            <th scope="col">Arm</th>
            <th scope="col">Version</th>
            <th scope="col" className="num">
              Requests/s
            </th>
            <th scope="col" className="num">
              p50
            </th>
            <th scope="col" className="num">
              p99
            </th>
            <th scope="col" className="num">
              OK
            </th>
            <th scope="col" className="num">
              Refused
            </th>
            <th scope="col" className="num">
              Errors
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={`${armKey(row)}@${row.version ?? ""}`}>
              {!within && (
                <td>
                  {row.arm ? (
                    <Anchor component={Link} to={`/endpoints/${row.tenant}/${row.target}`}>
                      {row.tenant}/{row.target}
                    </Anchor>
                  ) : (
                    `${row.tenant}/${row.target}`
                  )}
                </td>
              )}
              <td>{row.arm || "–"}</td>
              <td>{row.version || "–"}</td>
              <td className="num">{rate(row.requests_per_second)}</td>
              <td className="num">{millis(row.p50_ms)}</td>
              <td className="num">{millis(row.p99_ms)}</td>
              <td className="num">{count(row.ok)}</td>
              <td className="num">{count(row.refused)}</td>
              <td className="num">{count(row.errors)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}
