// What makes the pages move: each part finds its own elements and lets the others be.
import { startTable } from "./table.js";
import { startCharts } from "./chart.js";
import { startLive } from "./live.js";

startTable();
startCharts();
startLive(() => {
  startTable();
  startCharts();
});
