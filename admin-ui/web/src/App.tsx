/** Which page an address shows, and that nobody sees one without a session. */
import { Center, Loader } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { lazy, Suspense, useEffect } from "react";
import { Route, Routes } from "react-router";

import { ApiError, whenUnauthenticated } from "./api/client";
import { session } from "./api/queries";
import { OfMesh } from "./components/OfMesh";
import { Shell } from "./components/Shell";
import { Failure, Rows } from "./components/states";
import { SessionContext } from "./lib/session";
import { LiveProvider } from "./live/LiveProvider";
import { Login } from "./pages/Login";
import { Overview } from "./pages/Overview";

const Models = lazy(() => import("./pages/Models"));
const ModelPage = lazy(() => import("./pages/Model"));
const Publish = lazy(() => import("./pages/Publish"));
const Endpoints = lazy(() => import("./pages/Endpoints"));
const EndpointPage = lazy(() => import("./pages/Endpoint"));
const Devices = lazy(() => import("./pages/Devices"));
const Tenants = lazy(() => import("./pages/Tenants"));
const TenantPage = lazy(() => import("./pages/Tenant"));
const Policies = lazy(() => import("./pages/Policies"));
const Certificates = lazy(() => import("./pages/Certificates"));
const Audit = lazy(() => import("./pages/Audit"));
const NotFound = lazy(() => import("./pages/NotFound"));

export function App() {
  const who = useQuery(session);
  const client = useQueryClient();
  useEffect(() => whenUnauthenticated(() => void client.resetQueries({ queryKey: session.queryKey })), [client]);

  if (who.isPending)
    return (
      <Center h="100vh" component="main" aria-label="Loading">
        <Loader />
      </Center>
    );
  const refused = who.error instanceof ApiError && (who.error.status === 401 || who.error.status === 403);
  if (who.isError && !refused)
    return (
      <Center h="100vh" component="main">
        <Failure error={who.error} retry={() => void who.refetch()} />
      </Center>
    );
  if (!who.data || refused) return <Login />;
  return (
    <SessionContext value={who.data}>
      <LiveProvider>
        <Shell>
          <Suspense fallback={<Rows />}>
            <Routes>
              <Route index element={<Overview />} />
              <Route path="models" element={<Models />} />
              <Route path="models/publish" element={<Publish />} />
              <Route path="models/:tenant/:model" element={<ModelPage />} />
              <Route path="endpoints" element={<Endpoints />} />
              <Route path="endpoints/new" element={<EndpointPage />} />
              <Route path="endpoints/:tenant/:endpoint" element={<EndpointPage />} />
              <Route path="devices" element={<OfMesh title="Devices" page={<Devices />} />} />
              <Route path="tenants" element={<Tenants />} />
              <Route path="tenants/:tenant" element={<TenantPage />} />
              <Route path="certificates" element={<Certificates />} />
              <Route path="policies" element={<OfMesh title="Policies" page={<Policies />} />} />
              <Route path="audit" element={<OfMesh title="Audit" page={<Audit />} />} />
              <Route path="*" element={<NotFound />} />
            </Routes>
          </Suspense>
        </Shell>
      </LiveProvider>
    </SessionContext>
  );
}
