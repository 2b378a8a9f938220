// Every panel listens; then the stream begins.
import { startControl, stationOfAddress } from "./control.js";
import { startDetail } from "./detail.js";
import { startKeyboard } from "./keyboard.js";
import { startLatency } from "./latency.js";
import { startLive } from "./live.js";
import { startNumbers } from "./numbers.js";
import { startProduct } from "./product.js";
import { startRejects } from "./rejects.js";
import { connect } from "./stream.js";
import { startVerdict } from "./verdict.js";

stationOfAddress();
startVerdict();
startLive();
startNumbers();
startLatency();
startProduct();
startRejects();
startDetail();
startControl();
startKeyboard();
connect();
