/** Who is looking. */
import { createContext, useContext } from "react";

import type { Session } from "../api/types";

export const SessionContext = createContext<Session>({ who: "", role: "viewer" });
export const useSession = (): Session => useContext(SessionContext);
/** Whether this session may only look; what others may not change, the mesh refuses by name. */
export const useReadOnly = (): boolean => useContext(SessionContext).role === "viewer";
/** The tenant that this session is bound to; null: it sees the whole mesh. */
export const useBound = (): string | null => useContext(SessionContext).tenant ?? null;
