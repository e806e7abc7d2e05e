element.addEventListener("click", (event) => {
  const target = event.target.closest("[data-do]");
  if (!target || !element.contains(target)) return;
  trigger("select", { action: target.dataset.do, value: target.dataset.value ?? "" });
});
