/** Asks before a device is taken out of service or put back. */
import { Alert, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";

import { call, paths } from "../api/client";
import { devices as devicesQuery } from "../api/queries";
import type { DeviceDetail } from "../api/types";
import { Sure } from "./Sure";

interface Props {
  device: DeviceDetail;
  /** Whether it is the only one that takes requests. */
  last: boolean;
  opened: boolean;
  close: () => void;
}

export function Drain({ device, last, opened, close }: Props) {
  const client = useQueryClient();
  const back = device.draining;
  const path = paths.device(device.device, back ? "undrain" : "drain");
  const order = useMutation({
    mutationFn: () => call<DeviceDetail>(path, { method: "POST" }),
    onSuccess: async (changed) => {
      client.setQueryData(devicesQuery.queryKey, (known) =>
        known?.map((one) => (one.device === changed.device ? changed : one)),
      );
      close();
      await client.invalidateQueries({ queryKey: devicesQuery.queryKey });
    },
  });
  return (
    <Sure
      title={back ? `Undrain ${device.device}?` : `Drain ${device.device}?`}
      opened={opened}
      close={close}
      act={back ? "Undrain" : "Drain"}
      danger={!back}
      mutation={order}
      call={{ method: "POST", path }}
    >
      <Text size="sm">
        {back
          ? "It takes requests again at once: its models are still on it."
          : "It takes no new requests and finishes what it has. Its models stay on it, and versions that are ready on other devices are served there. It lasts until it is undrained, or until the mesh is restarted."}
      </Text>
      {!back && last && (
        <Alert color="orange" variant="outline" title="It is the last one that takes requests">
          <Text size="sm">Until one is undrained, every call is answered with 503.</Text>
        </Alert>
      )}
    </Sure>
  );
}
