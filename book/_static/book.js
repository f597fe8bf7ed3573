// Two corrections for screen readers that the theme needs: accessible names that contain the
// visible text, and a landmark around the side bar.
document.addEventListener("DOMContentLoaded", () => {
  for (const control of document.querySelectorAll("button[aria-label], summary[aria-label]")) {
    const text = control.textContent.replace(/\s+/g, " ").trim();
    const label = control.getAttribute("aria-label");
    const icon = control.matches(".theme-switch-button"); // its picture, drawn later, has a title
    if (icon || (text && !label.toLowerCase().includes(text.toLowerCase()))) {
      control.removeAttribute("aria-label");
    }
  }
  const sidebar = document.querySelector(".bd-sidebar-primary");
  if (sidebar) {
    sidebar.setAttribute("role", "complementary");
    sidebar.setAttribute("aria-label", "The book's contents");
  }
});
