// Bars that never wrap: what has no room goes into the menu behind "⋯", the least important first.

const MARGIN = 4; // CSS pixels between a menu and its button or the edge of the window.

/**
 * Keep the children of a bar in one row. Children with `data-rank` may go into the menu, the highest first;
 * the bar ends with `.more`, which holds a button and its menu.
 * @returns call it after the children have changed
 */
export function keepOneRow(bar) {
  const more = bar.querySelector(":scope > .more");
  const menu = more.querySelector("[popover]");
  const homes = new Map(); // Child -> the comment that keeps its place.
  let width = 0;

  function takeBack() {
    for (const [child, home] of homes) {
      if (!child.isConnected) home.remove();
      else if (child.parentNode === menu) home.after(child);
      if (!child.isConnected) homes.delete(child);
    }
  }

  function arrange() {
    if (bar.clientWidth === 0 || menu.matches(":popover-open")) return;
    takeBack();
    const children = [...bar.querySelectorAll(":scope > [data-rank]")];
    for (const child of children.filter((one) => !homes.has(one))) {
      homes.set(child, document.createComment(""));
      child.before(homes.get(child));
    }
    more.hidden = menu.childElementCount === 0;
    children.sort((one, other) => other.dataset.rank - one.dataset.rank);
    for (const child of children) {
      if (bar.scrollWidth <= bar.clientWidth) return;
      more.hidden = false;
      menu.prepend(child);
    }
  }

  new ResizeObserver(() => {
    if (bar.clientWidth === width) return;
    width = bar.clientWidth;
    arrange();
  }).observe(bar);
  menu.addEventListener("toggle", () => placeMenu(more.querySelector("button"), menu));
  return arrange;
}

/** Lay a menu below its button, inside the window. */
function placeMenu(button, menu) {
  if (!menu.matches(":popover-open")) return;
  const box = button.getBoundingClientRect();
  menu.style.top = `${Math.min(box.bottom + MARGIN, Math.max(MARGIN, innerHeight - menu.offsetHeight - MARGIN))}px`;
  menu.style.left = `${Math.max(MARGIN, Math.min(box.left, innerWidth - menu.offsetWidth - MARGIN))}px`;
}

/** Close the menu that an element is in, after something was chosen. */
export const closeMenu = (element) => element.closest("[popover]:popover-open")?.hidePopover();
