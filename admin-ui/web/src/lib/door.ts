/** Where the inference door is, as this browser was told, or where it usually is. */
const KEPT = "mesh-inference-address";

/** The inference door stands on another port than this page; 8000 unless configured. */
export const inferenceAddress = () => localStorage.getItem(KEPT) ?? `http://${window.location.hostname}:8000`;

export const keepInferenceAddress = (address: string) => localStorage.setItem(KEPT, address);

/** The page of a model's API, which the inference door serves. */
export const documentsOf = (model: string) =>
  `${inferenceAddress().replace(/\/+$/, "")}/v2/docs?model=${encodeURIComponent(model)}`;
