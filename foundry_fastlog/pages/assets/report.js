// Starts the report: everything that it shows is in the page.

import { Page } from "./page.js";
import { EmbeddedSource } from "./source.js";

const data = JSON.parse(document.getElementById("data").textContent);
const page = new Page(data, new EmbeddedSource());
page.start(document.getElementById("app"));
