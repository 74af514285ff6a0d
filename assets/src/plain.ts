/** The page script for those who keep Dash's own worker. */
import { page } from "./page";

page();
