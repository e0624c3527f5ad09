/** Asks before something is done: what it does, the call that does it, and what went wrong or what came of it. */
import { Alert, Button, Group, Modal, Stack, Text } from "@mantine/core";
import type { UseMutationResult } from "@tanstack/react-query";
import type { ReactNode } from "react";

import type { CurlCall } from "../lib/curl";
import { Curl } from "./Copy";
import { Failure } from "./states";

interface Props<T> {
  title: string;
  opened: boolean;
  close: () => void;
  /** The button's word. */
  act: string;
  /** Whether it takes something away. */
  danger?: boolean;
  mutation: UseMutationResult<T, Error, void>;
  call: CurlCall;
  /** What came of it, which is then shown in place of the question; without it whoever asks closes the window. */
  done?: (answer: T) => ReactNode;
  children: ReactNode;
}

export function Sure<T>({ title, opened, close, act, danger, mutation, call, done, children }: Props<T>) {
  const told = done && mutation.isSuccess ? done(mutation.data) : null;
  const leave = () => {
    mutation.reset();
    close();
  };
  return (
    <Modal opened={opened} onClose={leave} title={title} closeButtonProps={{ "aria-label": "Close" }}>
      {told !== null ? (
        <Stack>
          <Alert color="teal" variant="outline" title="Done" role="status">
            <Text size="sm">{told}</Text>
          </Alert>
          <Group justify="flex-end">
            <Button onClick={leave} data-autofocus>
              Close
            </Button>
          </Group>
        </Stack>
      ) : (
        <Stack>
          {children}
          {mutation.isError && <Failure error={mutation.error} />}
          <Group justify="space-between">
            <Curl call={call} />
            <Button {...(danger && { color: "red.9" })} loading={mutation.isPending} onClick={() => mutation.mutate()}>
              {act}
            </Button>
          </Group>
        </Stack>
      )}
    </Modal>
  );
}
