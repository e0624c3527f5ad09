/** What follows from models and their versions: which version an arm means, and what an input looks like. */
import type { ArmSpec, Device, DeviceDetail, Model, ModelVersion, TensorSpec, VersionSpec } from "../api/types";

export const modelOf = (version: ModelVersion): string => version.metadata.name.split("/")[0] ?? "";
export const numberOf = (version: ModelVersion): number => Number(version.metadata.name.split("/").at(-1));

/** The versions of one model, the newest first. */
export function versionsOf(all: ModelVersion[], tenant: string, model: string): ModelVersion[] {
  return all
    .filter((version) => version.metadata.tenant === tenant && modelOf(version) === model)
    .sort((a, b) => numberOf(b) - numberOf(a));
}

/** Where devices hold a model's versions, and how far each is. */
export const heldBy = (devices: Device[], tenant: string, model: string) =>
  devices.flatMap((device) =>
    device.models
      .filter((item) => item.tenant === tenant && item.model === model)
      .map((item) => ({ device: device.device, ...item })),
  );

/** What loading a version came to, on each device that has loaded it. */
export const loadsOf = (devices: DeviceDetail[], tenant: string, model: string, version: number) =>
  devices.flatMap(({ device, models }) =>
    models
      .filter((item) => item.tenant === tenant && item.model === model && Number(item.version) === version)
      .flatMap(({ load }) => (load ? [{ device, load }] : [])),
  );

/** How much of a file's end is looked at: a zip file's directory is there. */
const TAIL_BYTES = 4 << 20;

/** The format of a model's file by what it holds; the mesh looks again. */
export function formatOf(file: File): Promise<VersionSpec["format"]> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () =>
      resolve(String(reader.result).includes("data/aotinductor/") ? "torch_aoti" : "torchscript");
    reader.onerror = () => reject(reader.error ?? new Error("the file cannot be read"));
    // Bytes as they are: names in a zip file are ASCII.
    reader.readAsText(file.slice(Math.max(0, file.size - TAIL_BYTES)), "latin1");
  });
}

/** The version that an arm's reference means now: a number, a label, or the model's default. */
export function resolve(arm: ArmSpec, tenant: string, models: Model[], all: ModelVersion[]): ModelVersion | undefined {
  const model =
    models.find((item) => item.metadata.tenant === tenant && item.metadata.name === arm.model) ??
    models.find((item) => item.metadata.name === arm.model && item.spec.grants?.includes(tenant));
  if (!model) return undefined;
  const versions = versionsOf(all, model.metadata.tenant ?? tenant, arm.model);
  const reference = arm.version ?? model.spec.default_version;
  if (reference === undefined) return versions[0];
  const wanted = /^\d+$/.test(reference) ? Number(reference) : model.spec.labels?.[reference];
  return versions.find((version) => numberOf(version) === wanted);
}

const isDigits = (input: TensorSpec) => {
  const pixels = input.dims.filter((extent) => extent !== 1);
  return input.datatype === "FP32" && ["64", "8,8"].includes(pixels.join(",")) && !input.dims.includes(-1);
};

/** The input to draw on, when the model takes one picture of 8x8. */
export function drawable(spec: VersionSpec | undefined): TensorSpec | undefined {
  const [input, second] = spec?.config.input ?? [];
  return input && !second && isDigits(input) ? input : undefined;
}

export const shapeOf = (input: TensorSpec, batched: boolean): number[] => [
  ...(batched ? [1] : []),
  ...input.dims.map((extent) => (extent < 0 ? 1 : extent)),
];

/** One row of something for every input. */
export function exampleInputs(spec: VersionSpec | undefined, sample: number[] | undefined) {
  const batched = (spec?.config.max_batch_size ?? 0) > 0;
  return (spec?.config.input ?? []).filter((input) => !input.optional).map((input) => {
    const shape = shapeOf(input, batched && !input.unbatched);
    const length = shape.reduce((product, extent) => product * extent, 1);
    const zero: unknown = input.datatype === "BYTES" ? "text" : input.datatype === "BOOL" ? false : 0;
    const data = sample?.length === length ? sample : Array.from({ length: Math.min(length, 4096) }, () => zero);
    return { name: input.name, datatype: input.datatype, shape, data };
  });
}

export const bareDtype = (type: string): string => type.replace(/^TYPE_/, "");
