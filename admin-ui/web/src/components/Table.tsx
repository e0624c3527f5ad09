/** A list as a table, once: its columns say how a row is shown, and what is shown instead while there is none is said beside them. */
import type { UseQueryResult } from "@tanstack/react-query";
import type { ReactNode } from "react";

import { Failure, Rows, Scroll } from "./states";

export interface Column<T> {
  name: string;
  /** What a row shows in it. */
  cell: (row: T) => ReactNode;
  /** Numbers stand at the right. */
  num?: boolean;
  mono?: boolean;
  /** Its name is for those who do not see: a column of buttons needs none. */
  silent?: boolean;
}

interface TableProps<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  /** What tells a row from all others. */
  id: (row: T) => string;
}

const classOf = (column: { num?: boolean; mono?: boolean }) =>
  [column.num && "num", column.mono && "mono"].filter(Boolean).join(" ") || undefined;

export function Table<T>({ label, columns, rows, id }: TableProps<T>) {
  return (
    <Scroll label={label}>
      <table className="grid">
        <thead>
          <tr>
            {columns.map((column) => (
              <th scope="col" key={column.name} className={column.num ? "num" : undefined}>
                {column.silent ? <span className="sr">{column.name}</span> : column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={id(row)}>
              {columns.map((column) => (
                <td key={column.name} className={classOf(column)}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

/** The same of what is asked for: while it is asked, where that fails, and where there is none. */
export function Listed<T>({
  query,
  empty,
  ...table
}: Omit<TableProps<T>, "rows"> & { query: UseQueryResult<T[]>; empty: ReactNode }) {
  if (query.isPending) return <Rows count={3} />;
  const failure = query.isError && <Failure error={query.error} retry={() => void query.refetch()} />;
  // What was there before a refresh failed stays, with what can be done to it.
  const rows = query.data;
  return (
    <>
      {failure}
      {rows && (rows.length === 0 ? !failure && empty : <Table {...table} rows={rows} />)}
    </>
  );
}
