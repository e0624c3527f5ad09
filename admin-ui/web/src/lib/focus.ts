/** Where the focus goes once a window that had it is gone (WCAG 2.4.3): nobody is left at the top of the page. */
import { useLayoutEffect } from "react";

const FOCUSABLE = "a[href], button, input, select, textarea, [tabindex]";

function canHaveIt(element: Element): element is HTMLElement {
  return (
    element instanceof HTMLElement && element.isConnected && element.matches(FOCUSABLE) && !element.matches(":disabled")
  );
}

/** What had the focus, and what is around it, from within. */
function wayOut(from: Element | null): Element[] {
  const way: Element[] = [];
  for (let at = from; at; at = at.parentElement) way.push(at);
  return way;
}

/** Whether the focus is somewhere by its user's choice: outside of windows, and not nowhere. */
const isPlaced = (element: Element | null) =>
  element !== null && element !== document.body && !element.closest("[role=dialog]");

/** While it is open, a window has the focus. Afterwards, closed or gone, what opened it has it again; where that is gone as well (the row
 * of a list that was deleted), the nearest part of the page around it that is still there, or the page's content. */
export function useFocusBack(opened: boolean): void {
  useLayoutEffect(() => {
    if (!opened) return;
    const way = wayOut(document.activeElement);
    return () => {
      // Once the page is drawn without it.
      window.setTimeout(() => {
        if (isPlaced(document.activeElement)) return;
        const target = way.find(canHaveIt) ?? document.getElementById("content");
        target?.focus({ preventScroll: true });
      });
    };
  }, [opened]);
}
