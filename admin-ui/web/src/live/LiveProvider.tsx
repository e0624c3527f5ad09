/** Holds the one stream of live numbers that all pages share. */
import { createContext, useContext, useEffect, useReducer, useState, type ReactNode } from "react";

import { BASE, call } from "../api/client";
import type { Overview } from "../api/types";
import { EMPTY, reduce, staleFor, type Live } from "./reducer";

const RETRY_MS = 3_000;

interface LiveState extends Live {
  /** How old the news is, in milliseconds, when too old. */
  stale: number | null;
}
const LiveContext = createContext<LiveState>({ ...EMPTY, stale: null });
export const useLive = (): LiveState => useContext(LiveContext);

type Action = { overview: Overview; now: number };
const step = (live: Live, action: Action): Live => reduce(live, action.overview, action.now);

export function LiveProvider({ children }: { children: ReactNode }) {
  const [live, dispatch] = useReducer(step, EMPTY);
  const [started] = useState(() => Date.now());
  const [now, setNow] = useState(started);

  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);

  useEffect(() => {
    let source: EventSource | null = null;
    let retry: ReturnType<typeof setTimeout> | undefined;
    const take = (overview: Overview) => dispatch({ overview, now: Date.now() });
    const connect = () => {
      source = new EventSource(`${BASE}/events`);
      source.addEventListener("overview", (event) =>
        take(JSON.parse((event as MessageEvent<string>).data) as Overview),
      );
      source.onerror = () => {
        // A browser gives up on its own when the answer is no stream: ask once by hand, which also notices a lost session.
        if (source?.readyState !== EventSource.CLOSED) return;
        retry = setTimeout(() => {
          call<Overview>("/overview").then(take, () => undefined);
          connect();
        }, RETRY_MS);
      };
    };
    connect();
    return () => {
      clearTimeout(retry);
      source?.close();
    };
  }, []);

  return (
    <LiveContext.Provider value={{ ...live, stale: staleFor(live, started, now) }}>{children}</LiveContext.Provider>
  );
}
