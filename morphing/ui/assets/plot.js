const box = element.querySelector(".m-plot-box");
let listening = false;

// Figures name their colours as CSS variables, so that one figure suits both themes.
const painted = (value, style) => {
  if (typeof value === "string" && value.startsWith("var(--"))
    return style.getPropertyValue(value.slice(4, -1)).trim();
  if (Array.isArray(value)) return value.map((item) => painted(item, style));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, style)]));
  return value;
};

const draw = () => {
  if (!props.value) return;
  if (!window.Plotly) return void setTimeout(draw, 100);
  const figure = painted(JSON.parse(props.value), getComputedStyle(element));
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  Plotly.react(box, figure.data, figure.layout, config);
  if (listening) return;
  listening = true;
  box.on("plotly_click", (event) => {
    const trial = event.points[0].customdata;
    if (typeof trial === "number" || typeof trial === "string")
      trigger("select", { action: "focus", value: String(trial) });
  });
};

watch("value", draw);
new MutationObserver(draw).observe(document.body, { attributeFilter: ["class"] });
new ResizeObserver(() => listening && box.offsetWidth && Plotly.Plots.resize(box)).observe(element);
draw();
