/** Publishes a version of a model: a file, how it is called, and labels that should point at it. */
import { Button, FileButton, Group, Progress, Select, Stack, Text, Textarea, TextInput } from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState, type DragEvent } from "react";
import { useNavigate, useSearchParams } from "react-router";

import { call, paths, upload } from "../api/client";
import { tenants } from "../api/queries";
import type { ModelConfig, ModelVersion, VersionSpec } from "../api/types";
import { Curl } from "../components/Copy";
import { Failure, PageHead, Surface } from "../components/states";
import { bytes } from "../lib/format";
import { formatOf } from "../lib/models";
import { useReadOnly } from "../lib/session";

const EXAMPLE = `{
  "max_batch_size": 64,
  "input":  [{ "name": "pixels", "datatype": "FP32", "dims": [64] }],
  "output": [{ "name": "probabilities", "datatype": "FP32", "dims": [10] }],
  "dynamic_batching": { "max_queue_delay_microseconds": 500 }
}`;

function parse(text: string): { config?: ModelConfig; fault?: string } {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value))
      return { fault: "a configuration is a JSON object" };
    return { config: value as ModelConfig };
  } catch (error) {
    return { fault: error instanceof Error ? error.message : "this is no JSON" };
  }
}

export default function Publish() {
  const [query] = useSearchParams();
  const [tenant, setTenant] = useState<string | null>(query.get("tenant"));
  const [model, setModel] = useState(query.get("model") ?? "");
  const [labels, setLabels] = useState("");
  const [text, setText] = useState(EXAMPLE);
  const [file, setFile] = useState<File | null>(null);
  const [sent, setSent] = useState(0);
  const list = useQuery(tenants);
  const client = useQueryClient();
  const go = useNavigate();
  const readOnly = useReadOnly();
  const { config, fault } = parse(text);
  const wanted = labels.split(/[\s,]+/).filter(Boolean);
  const publish = useMutation({
    mutationFn: async () => {
      if (!file || !config || !tenant) throw new Error("choose a tenant and a file first");
      const artifact = await upload(file, setSent);
      const spec: VersionSpec = { format: await formatOf(file), artifact, config };
      return call<ModelVersion>(paths.versions(tenant, model), {
        method: "POST",
        json: { spec, ...(wanted.length > 0 && { labels: wanted }) },
      });
    },
    onSuccess: async () => {
      await Promise.all([
        client.invalidateQueries({ queryKey: ["models"] }),
        client.invalidateQueries({ queryKey: ["versions"] }),
      ]);
      await go(`/models/${tenant}/${model}`);
    },
  });
  return (
    <>
      <PageHead
        title="Publish a version"
        note="The number follows by itself. Nothing is sent to it before an endpoint or a label says so."
      />
      <form
        onSubmit={(event) => {
          event.preventDefault();
          publish.mutate();
        }}
      >
        <Stack gap={14}>
          <Surface title="What">
            <div className="fields">
              <Select
                label="Tenant"
                data={(list.data ?? []).map((item) => item.metadata.name)}
                value={tenant}
                onChange={setTenant}
                required
                searchable
              />
              <TextInput
                label="Model"
                description="Made if it is not there"
                value={model}
                onChange={(event) => setModel(event.currentTarget.value)}
                required
              />
              <TextInput
                label="Labels"
                description="Point these at it, such as canary"
                value={labels}
                onChange={(event) => setLabels(event.currentTarget.value)}
              />
            </div>
          </Surface>
          <Surface title="File">
            <Drop file={file} choose={setFile} />
            {publish.isPending && <Progress mt="sm" value={sent * 100} aria-label="Upload" />}
          </Surface>
          <Surface title="Configuration">
            <Textarea
              aria-label="Configuration, JSON"
              description="Triton's ModelConfig vocabulary. The example takes one picture of 8x8 and answers ten probabilities."
              autosize
              minRows={8}
              value={text}
              onChange={(event) => setText(event.currentTarget.value)}
              error={fault}
              styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)", fontSize: "0.84rem" } }}
              spellCheck={false}
            />
          </Surface>
          {publish.isError && <Failure error={publish.error} />}
          <Group justify="space-between">
            <Stack gap={4}>
              <Curl
                title="Upload with curl"
                call={{ method: "POST", path: "/artifacts", file: file?.name ?? "model.pt" }}
              />
              <Curl
                title="Publish with curl"
                call={{
                  method: "POST",
                  path: paths.versions(tenant ?? "TENANT", model || "MODEL"),
                  json: {
                    spec: {
                      format: file?.name.endsWith(".pt2") ? "torch_aoti" : "torchscript",
                      artifact: { sha256: "SHA256", bytes: file?.size ?? 0 },
                      config: config ?? {},
                    },
                    labels: wanted,
                  },
                }}
              />
            </Stack>
            <Button
              type="submit"
              loading={publish.isPending}
              disabled={readOnly || !file || !config || !tenant || model === ""}
            >
              Publish
            </Button>
          </Group>
        </Stack>
      </form>
    </>
  );
}

function Drop({ file, choose }: { file: File | null; choose: (file: File | null) => void }) {
  const [over, setOver] = useState(false);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    choose(event.dataTransfer.files[0] ?? null);
  };
  return (
    <div
      className="drop"
      data-over={over}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <Text mb="xs" fw={600}>
        {file ? `${file.name}, ${bytes(file.size)}` : "Drop a TorchScript file here"}
      </Text>
      <FileButton onChange={choose} accept=".pt,.pt2,.pth,.ts">
        {(props) => (
          <Button {...props} variant="default">
            {file ? "Choose another" : "Choose a file"}
          </Button>
        )}
      </FileButton>
    </div>
  );
}
