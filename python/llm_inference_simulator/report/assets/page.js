// Draws the charts of the page, in its colours, and turns its views into tabs.
"use strict";
(() => {
  const PRINT_WIDTH = 660; // CSS pixels of an A4 page between its margins
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Map();
  let printing = false;

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const color = (role) => css(typeof role === "number" ? `--c${role % 8}` : `--${role}`);

  // --- numbers -------------------------------------------------------------------------------

  const digits = (value, most) => value.toLocaleString("en", { maximumSignificantDigits: most });
  const FORMATS = {
    number: (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : digits(value, 4)),
    percent: (value) => `${digits(value * 100, 3)} %`,
    milliseconds: (value) =>
      Math.abs(value) >= 1000 ? `${digits(value / 1000, 4)} s` : `${digits(value, 4)} ms`,
  };
  const written = (axis, value) => FORMATS[axis.format](axis.log ? 10 ** value : value);

  // --- charts --------------------------------------------------------------------------------

  function axisOption(axis, vertical) {
    const option = {
      name: axis.log ? `${axis.title} (logarithmic)` : axis.title,
      nameLocation: vertical ? "end" : "middle",
      nameGap: vertical ? 12 : 28,
      nameTextStyle: { color: css("--dim"), align: vertical ? "left" : "center", padding: vertical ? [0, 0, 0, -38] : 0 },
      axisLine: { lineStyle: { color: css("--line") } },
      axisTick: { lineStyle: { color: css("--line") } },
      axisLabel: { color: css("--dim"), hideOverlap: true },
      splitLine: { show: vertical && !axis.categories, lineStyle: { color: css("--grid") } },
    };
    if (axis.categories) {
      return {
        ...option,
        type: "category",
        data: axis.categories,
        inverse: vertical,
        axisLabel: { ...option.axisLabel, hideOverlap: false, width: 150, overflow: "truncate" },
      };
    }
    const at = axis.ticks ? { customValues: axis.ticks } : {};
    return {
      ...option,
      type: "value",
      min: axis.low ?? undefined,
      max: axis.high ?? undefined,
      axisTick: { ...option.axisTick, ...at },
      axisLabel: { ...option.axisLabel, ...at, formatter: (value) => written(axis, value) },
    };
  }

  function seriesOption(spec, series) {
    const paint = series.hidden ? "transparent" : color(series.color);
    const option = { name: series.name, data: series.values, stack: series.stack ?? undefined, animation: false };
    if (series.kind === "bar") {
      return { ...option, type: "bar", itemStyle: { color: paint }, barMaxWidth: 26, silent: series.hidden };
    }
    if (series.kind === "points") {
      return { ...option, type: "scatter", symbolSize: 9, itemStyle: { color: paint } };
    }
    return {
      ...option,
      type: "line",
      showSymbol: false,
      step: series.step ? "end" : false,
      stackStrategy: "all",
      itemStyle: { color: paint },
      lineStyle: { color: paint, width: 1.8, type: series.dashed ? "dashed" : "solid" },
      areaStyle: series.kind === "area" ? { color: paint, opacity: series.stack ? 0.55 : 0.18 } : undefined,
    };
  }

  // Tooltips are built from nodes: a name can never become markup.
  function element(kind, className, text) {
    const node = document.createElement(kind);
    node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  // The place in a series whose x is nearest; none beyond its ends.
  function nearest(values, x) {
    if (!values.length || x < values[0][0] || x > values.at(-1)[0]) return undefined;
    let low = 0;
    let high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle][0] <= x) low = middle;
      else high = middle;
    }
    return x - values[low][0] <= values[high][0] - x ? low : high;
  }

  // What each series says at the pointer: [series, its place]. Lines have x of their own.
  function pointed(spec, points) {
    if (spec.tooltip === "item" || spec.series.some((series) => series.kind === "bar")) {
      return points.map((point) => [spec.series[point.seriesIndex], point.dataIndex]);
    }
    const x = points[0].axisValue;
    return spec.series.map((series) => [series, series.step ? held(series.values, x) : nearest(series.values, x)]);
  }

  // A stepped line holds its value until the next one.
  function held(values, x) {
    const next = values.findIndex((value) => value[0] > x);
    return next > 0 ? next - 1 : undefined;
  }

  function tooltip(spec, values) {
    const tip = element("div", "tip");
    const points = Array.isArray(values) ? values : [values];
    const [keyAxis, valueAxis] = spec.flip ? [spec.y, spec.x] : [spec.x, spec.y];
    const head = keyAxis.categories ? points[0].name : written(keyAxis, points[0].axisValue ?? points[0].value[0]);
    tip.append(element("div", "head", keyAxis.title ? `${keyAxis.title}: ${head}` : head));
    for (const [series, place] of pointed(spec, points)) {
      const found = place === undefined ? undefined : series.values[place];
      const value = Array.isArray(found) ? found[1] : found;
      if (series.hidden || value === null || value === undefined || (keyAxis.categories && !value)) continue;
      const row = element("div", "row");
      const dot = element("span", "dot");
      dot.style.background = color(series.color);
      row.append(dot, element("span", "name", series.name), element("span", "value", written(valueAxis, value)));
      tip.append(row);
      if (series.labels) tip.append(element("div", "note", series.labels[place]));
    }
    return tip;
  }

  function chartOption(spec) {
    const names = spec.series.filter((series) => !series.hidden).map((series) => series.name);
    const bars = spec.series.some((series) => series.kind === "bar");
    const series = spec.series.map((each) => seriesOption(spec, each));
    if (spec.marks.length && series.length) {
      series[0].markLine = {
        silent: true,
        symbol: "none",
        lineStyle: { color: css("--dim"), type: "dotted" },
        data: spec.marks.map((mark) => ({ xAxis: mark.at, label: { formatter: mark.text, color: css("--dim") } })),
      };
    }
    const legend = new Set(names).size > 1;
    return {
      animation: false,
      textStyle: { color: css("--ink"), fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { left: 8, right: 24, top: (legend ? 32 : 0) + (spec.y.title ? 26 : 12), bottom: spec.x.title ? 30 : 8, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
      legend: legend
        ? { type: "scroll", top: 0, left: 0, data: [...new Set(names)], icon: "roundRect", itemWidth: 12, itemHeight: 8,
            textStyle: { color: css("--ink") }, pageTextStyle: { color: css("--dim") }, pageIconColor: css("--ink"), pageIconInactiveColor: css("--line") }
        : undefined,
      tooltip: {
        trigger: spec.tooltip,
        confine: true,
        axisPointer: { type: bars ? "shadow" : "line", shadowStyle: { color: css("--grid"), opacity: 0.5 }, lineStyle: { color: css("--dim") } },
        backgroundColor: css("--raised"),
        borderColor: css("--line"),
        textStyle: { color: css("--ink") },
        formatter: (values) => tooltip(spec, values),
      },
      xAxis: axisOption(spec.x, false),
      yAxis: axisOption(spec.y, true),
      series,
    };
  }

  function draw(spec) {
    const place = document.getElementById(`chart-${spec.id}`);
    let chart = drawn.get(spec.id);
    if (!chart) {
      if (!place.clientWidth && !printing) return; // in a view that is not open: drawn when it opens
      chart = echarts.init(place, null, { renderer: "svg", width: printing ? PRINT_WIDTH : undefined });
      drawn.set(spec.id, chart);
    }
    if (printing) chart.resize({ width: place.closest(".wide") ? PRINT_WIDTH : place.clientWidth || PRINT_WIDTH });
    else if (place.clientWidth) chart.resize({ width: "auto" });
    chart.setOption(chartOption(spec), true);
  }

  const drawAll = () => specs.forEach(draw);

  // --- views ---------------------------------------------------------------------------------

  const tabs = [...document.querySelectorAll("[role=tab]")];

  function open(tab) {
    for (const each of tabs) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", String(chosen));
      each.tabIndex = chosen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).classList.toggle("open", chosen);
    }
    drawAll();
  }

  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (next === undefined) return;
      const target = tabs[(next + tabs.length) % tabs.length];
      target.focus();
      open(target);
      event.preventDefault();
    });
  });
  document.body.classList.add("tabbed");
  open(tabs[0]);

  // --- what changes around the page ----------------------------------------------------------

  let waiting = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(drawAll);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  matchMedia("print").addEventListener("change", (event) => {
    printing = event.matches;
    drawAll();
  });
})();
