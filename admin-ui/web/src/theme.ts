/** Colours and type. Every text colour is at least 4.5:1 on its ground, light and dark. */
import { createTheme, type CSSVariablesResolver, type MantineColorsTuple } from "@mantine/core";

const mesh: MantineColorsTuple = [
  "#e6f6f8",
  "#d0e9ee",
  "#a3d3dd",
  "#72bccb",
  "#4fa9bc",
  "#349cb1",
  "#1f8297",
  "#12697d",
  "#0c5c6f",
  "#064a5b",
];

/** From text to ground, with a little blue in all. */
const dark: MantineColorsTuple = [
  "#e3e9ec",
  "#b9c4ca",
  "#94a1aa",
  "#6c7a83",
  "#3a4850",
  "#2f3c43",
  "#1f2a30",
  "#182126",
  "#11191d",
  "#0c1215",
];

export const theme = createTheme({
  colors: { mesh, dark },
  primaryColor: "mesh",
  primaryShade: { light: 8, dark: 7 },
  defaultRadius: "md",
  fontFamily: "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
  fontFamilyMonospace: "ui-monospace, 'JetBrains Mono', 'SF Mono', Menlo, Consolas, monospace",
  headings: {
    fontWeight: "650",
    sizes: { h1: { fontSize: "1.6rem" }, h2: { fontSize: "1.15rem" }, h3: { fontSize: "1rem" } },
  },
  cursorType: "pointer",
});

export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-dimmed": "#52606b",
    "--mantine-color-placeholder": "#65727c",
    "--mantine-color-error": "#b3261e",
    "--mantine-color-body": "#f5f7f8",
    "--surface": "#ffffff",
    "--line": "#dde3e7",
    "--good": "#137a3f",
    "--warn": "#8f5600",
    "--bad": "#b3261e",
    "--series-0": "#0c6f86",
    "--series-1": "#c2570c",
    "--series-2": "#6941c6",
    "--series-3": "#2f7d32",
    "--ink": "#0f2530",
  },
  dark: {
    "--mantine-color-dimmed": "#a9b5bd",
    "--mantine-color-placeholder": "#94a1aa",
    "--mantine-color-error": "#ff9a92",
    "--mantine-color-body": "#10171b",
    "--mantine-color-text": "#e3e9ec",
    "--mantine-color-anchor": "#72bccb",
    "--surface": "#182126",
    "--line": "#2c3940",
    "--good": "#6bd394",
    "--warn": "#ffc069",
    "--bad": "#ff9a92",
    "--series-0": "#5cc4da",
    "--series-1": "#ffab70",
    "--series-2": "#b9a2ff",
    "--series-3": "#8fd694",
    "--ink": "#f2f7f9",
  },
});
