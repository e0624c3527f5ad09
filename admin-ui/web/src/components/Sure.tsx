/** Asks before something is done: what it does, the call that does it, and what went wrong or what came of it. The focus stays within
 * while that changes, and goes back to where it was. */
import { Alert, Button, Group, Modal, Stack, Text } from "@mantine/core";
import type { UseMutationResult } from "@tanstack/react-query";
import { useEffect, useRef, type ReactNode } from "react";

import type { CurlCall } from "../lib/curl";
import { useFocusBack } from "../lib/focus";
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
  const again = useRef<HTMLButtonElement>(null);
  useFocusBack(opened);
  // A button that is at it cannot have the focus, and lost it.
  useEffect(() => {
    if (mutation.isError) again.current?.focus();
  }, [mutation.isError]);
  const leave = () => {
    mutation.reset();
    close();
  };
  return (
    <Modal
      opened={opened}
      onClose={leave}
      title={title}
      returnFocus={false}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      {told !== null ? (
        <Stack key="told">
          <Alert color="teal" variant="outline" title="Done" role="status">
            <Text size="sm">{told}</Text>
          </Alert>
          <Group justify="flex-end">
            <Button onClick={leave} autoFocus>
              Close
            </Button>
          </Group>
        </Stack>
      ) : (
        <Stack key="asked">
          {children}
          {mutation.isError && <Failure error={mutation.error} />}
          <Group justify="space-between">
            <Curl call={call} />
            <Button
              ref={again}
              {...(danger && { color: "red.9" })}
              loading={mutation.isPending}
              onClick={() => mutation.mutate()}
            >
              {act}
            </Button>
          </Group>
        </Stack>
      )}
    </Modal>
  );
}
