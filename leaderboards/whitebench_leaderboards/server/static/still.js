// What makes the pages move that no server answers: they are as they are, and ask nobody.
import { startTable } from "./table.js";
import { startCharts } from "./chart.js";

startTable();
startCharts();
