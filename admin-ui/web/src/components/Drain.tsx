/** Asks before a device is taken out of service or put back. */
import { Alert, Button, Group, Modal, Stack, Text } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";

import { call, paths } from "../api/client";
import { devices as devicesQuery } from "../api/queries";
import type { DeviceDetail } from "../api/types";
import { Curl } from "./Copy";
import { Failure } from "./states";

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
    <Modal
      opened={opened}
      onClose={close}
      title={back ? `Undrain ${device.device}?` : `Drain ${device.device}?`}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <Stack>
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
        {order.isError && <Failure error={order.error} />}
        <Group justify="space-between">
          <Curl call={{ method: "POST", path }} />
          <Button {...(!back && { color: "red.9" })} loading={order.isPending} onClick={() => order.mutate()}>
            {back ? "Undrain" : "Drain"}
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
